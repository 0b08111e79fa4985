"""Sets of features: what they hold, and what they do not depend on."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from mabe_behavior.features import coordinates, invariants, pca, sets
from mabe_behavior.features.columns import Table
from mabe_behavior.features.pca import PCA
from mabe_behavior.parts import STD7
from mabe_behavior.tracks import Tracks

INVARIANT = ("alone", "pair", "alone_now", "pair_now")
MIRRORED = ("nose", "ear_right", "ear_left", "neck", "hip_right", "hip_left", "tail_base")


def mice(fps: float = 30.0, seconds: float = 12.0, parts: tuple[str, ...] = STD7) -> Tracks:
    """Two mice on smooth ways, which bend, stretch, turn their heads and meet."""
    t = np.arange(round(fps * seconds)) / fps
    ahead = dict(
        nose=4, head=3.5, ear_left=3, ear_right=3, neck=2, body_center=0, hip_left=-2, hip_right=-2, tail_base=-3
    )
    aside = dict(ear_left=-1, ear_right=1, hip_left=-1.5, hip_right=1.5)
    animals = []
    for k in (0, 1):
        way = (
            20
            + 8 * np.stack((np.sin(0.9 * t + k), np.cos(0.7 * t + 2 * k)), -1)
            + np.stack((0 * t, 2 * k * np.sin(t)), -1)
        )
        turn = 0.8 * t * (1 - 2 * k) + 0.5 * np.sin(2 * t + k)
        bend = 0.4 * np.sin(3 * t + 0.3 + k)
        for_part = []
        for part in parts:
            far, side = ahead[part] * (1 + 0.1 * np.sin(2.5 * t + k)), aside.get(part, 0) + 0 * t
            angle = turn + (bend if ahead[part] > 0 else 0)
            x, y = np.cos(angle) * far - np.sin(angle) * side, np.sin(angle) * far + np.cos(angle) * side
            for_part.append(way + np.stack((x, y), -1))
        animals.append(np.stack(for_part, axis=1))
    return Tracks(16 * np.stack(animals, axis=1).astype(np.float32), ("mouse1", "mouse2"), parts, fps, 16.0)


def fitted(tracks: Tracks) -> PCA:
    return pca.fit([coordinates.raw28(tracks, "mouse1", "mouse2").x_TF], 16)


def made(tracks: Tracks, name: str) -> Table:
    return sets.features(tracks, "mouse1", "mouse2", name, fitted(mice()) if name == "v4" else None)


def moved(tracks: Tracks, matrix: np.ndarray, shift: np.ndarray) -> Tracks:
    return replace(tracks, xy_TAPX=(tracks.xy_TAPX @ matrix.T + shift).astype(np.float32))


def differing(one: Table, other: Table, within: float, inner: slice = slice(None)) -> list[str]:
    """Names of columns that differ by more than this share of their spread, or are missing elsewhere."""
    assert one.names == other.names
    a, b = one.x_TF[inner], other.x_TF[inner]
    assert np.array_equal(np.isnan(a), np.isnan(b))
    apart = np.nanmax(np.abs(a - b), axis=0) > within * (np.nanstd(a, axis=0) + 0.02)
    return [name for name, differs in zip(one.names, apart, strict=True) if differs]


@pytest.mark.parametrize("name", sets.SETS)
def test_sets_have_as_many_columns_as_they_say_each_with_its_name(name: str) -> None:
    found = made(mice(), name)
    assert found.x_TF.shape == (360, sets.WIDTHS[name]) and found.x_TF.dtype == np.float32
    assert len(set(found.names)) == len(found.names) == sets.WIDTHS[name]
    assert found.x_TF.flags.c_contiguous
    if name in INVARIANT:
        assert np.isfinite(found.x_TF).all()
        assert (found.x_TF.std(axis=0) > 0).mean() > 0.97  # nearly none says nothing
    assert name in sets.__doc__ and str(sets.WIDTHS[name]) in sets.__doc__


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 3.0])
@pytest.mark.parametrize("mirror", [False, True])
def test_sets_do_not_change_when_a_recording_is_moved_turned_or_reflected(
    name: str, angle: float, mirror: bool
) -> None:
    tracks = mice()
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    other = moved(tracks, matrix @ np.diag([-1, 1]) if mirror else matrix, np.array([300.0, -40.0]))
    if mirror:  # and what was its left ear is now its right one
        other = replace(other, xy_TAPX=other.of_parts(MIRRORED).xy_TAPX)
    assert differing(made(tracks, name), made(other, name), 5e-3) == []


def test_picture_coordinates_do_change() -> None:
    tracks = mice()
    assert (
        len(differing(made(tracks, "raw28"), made(moved(tracks, np.eye(2), np.array([80.0, 0])), "raw28"), 2e-3)) == 14
    )


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("fps", [60.0, 90.0, 120.0, 150.0])
def test_sets_are_the_same_from_a_faster_camera(name: str, fps: float) -> None:
    assert differing(made(mice(), name), made(mice(fps).resampled(30.0), name), 5e-3) == []


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("fps", [50.0, 100.0])
def test_sets_are_nearly_the_same_where_frames_fall_between_frames(name: str, fps: float) -> None:
    one, other = made(mice(), name), made(mice(fps).resampled(30.0), name)
    steady = [k for k, column in enumerate(one.names) if "jerk" not in column and "contact" not in column]
    apart = np.median(np.abs(one.x_TF - other.x_TF), axis=0) / (one.x_TF.std(axis=0) + 1e-3)
    assert apart[steady].max() < 0.1


@pytest.mark.parametrize("name", INVARIANT)
def test_scale_is_that_of_the_animal_not_of_the_camera(name: str) -> None:
    tracks = mice()
    near = replace(tracks, xy_TAPX=tracks.xy_TAPX * 2, pixels_per_cm=tracks.pixels_per_cm * 2)
    assert differing(made(tracks, name), made(near, name), 1e-4) == []


def test_speeds_are_those_of_one_part_each() -> None:
    """Of x and y of the same part, in whatever order and number the parts are tracked."""
    parts = ("tail_base", "ear_right", "nose", "ear_left")
    t = np.arange(60)[:, None, None] / 30
    v_APX = np.arange(1, 17).reshape(2, 4, 2) ** 1.3
    a_APX = np.arange(16, 0, -1).reshape(2, 4, 2) ** 1.1
    xy = 10 * (v_APX * t[..., None] + a_APX * t[..., None] ** 2 / 2)
    found = made(Tracks(xy.astype(np.float32), ("mouse1", "mouse2"), parts, 30.0, 10.0), "v6")
    for role, animal in (("agent", 0), ("target", 1)):
        for place, part in enumerate(parts):
            v, a = v_APX[animal, place], a_APX[animal, place]
            expected = np.hypot(*(v[:, None] + a[:, None] * t[:, 0, 0]))
            assert found.column(f"{role}.{part}.speed") == pytest.approx(expected, rel=1e-3)
            assert found.column(f"{role}.{part}.acceleration") == pytest.approx(np.hypot(*a), rel=1e-2)
    there = {name for name, column in zip(found.names, found.x_TF.T, strict=True) if np.isfinite(column).any()}
    assert len(there) == 2 * 4 * 4  # and nothing of parts and animals that are not there


def test_roles_are_who_they_are_said_to_be() -> None:
    tracks = mice()
    one, other = made(tracks, "pair"), sets.features(tracks, "mouse2", "mouse1", "pair")
    assert np.array_equal(one.column("agent.speed.nose"), other.column("target.speed.nose"))
    assert np.array_equal(one.column("pair.facing.agent"), other.column("pair.facing.target"))
    assert one.column("pair.chase") == pytest.approx(other.column("pair.chased"), abs=1e-5)
    raw, back = made(tracks, "raw28"), sets.features(tracks, "mouse2", "mouse1", "raw28")
    assert np.array_equal(raw.x_TF[:, :14], back.x_TF[:, 14:]) and raw.names[0] == "agent.nose.x"
    assert raw.column("target.neck.y") == pytest.approx(tracks.cm_TAPX[:, 1, STD7.index("neck"), 1])
    own = sets.features(tracks, "mouse2", "self", "raw28").x_TF
    assert np.array_equal(own[:, :14], back.x_TF[:, :14]) and np.isnan(own[:, 14:]).all()


def test_a_mouse_that_runs_straight_at_another_approaches_it() -> None:
    t = np.arange(90) / 30
    xy = np.stack([mice().cm_TAPX[0, 0]] * 90)[:, None].repeat(2, axis=1)
    xy -= xy[:, :, [STD7.index("neck")]]
    body = xy[0, 0, STD7.index("neck")] - xy[0, 0, STD7.index("tail_base")]
    ahead = body / np.hypot(*body)
    xy[:, 0] += ahead * 12 * t[:, None, None]  # 12 cm/s towards the other, which sits 60 cm ahead
    xy[:, 1] += ahead * 60
    found = made(Tracks((10 * xy).astype(np.float32), ("mouse1", "mouse2"), STD7, 30.0, 10.0), "pair")
    for name in ("pair.approach", "pair.approach.agent", "agent.speed.center", "pair.approach.nose.nose"):
        assert found.column(name) == pytest.approx(12, abs=1e-2), name
    assert found.column("target.speed.center") == pytest.approx(0, abs=1e-2)
    assert found.column("pair.distance.center.center") == pytest.approx(60 - 12 * t, abs=1e-3)
    assert (found.column("pair.contact") == 0).all() and (found.column("pair.since.contact") == invariants.MEMORY).all()
    assert (found.column("pair.chase") < 0.5).all() and found.column("pair.parallel") == pytest.approx(1)


@pytest.mark.parametrize("name", sets.SETS)
@pytest.mark.parametrize("part", ["nose", "hip_left", "tail_base"])
def test_what_is_missing_is_missing_for_the_windows_that_see_it(name: str, part: str) -> None:
    tracks, frame = mice(), 180
    before = made(tracks, name)
    xy = tracks.xy_TAPX.copy()
    xy[frame, 0, STD7.index(part)] = np.nan
    found = made(replace(tracks, xy_TAPX=xy), name)
    changed = ~((found.x_TF == before.x_TF) | (np.isnan(found.x_TF) & np.isnan(before.x_TF)))
    lost = np.isnan(found.x_TF) & ~np.isnan(before.x_TF)
    for k, column in enumerate(found.names):
        where = np.flatnonzero(lost[:, k])
        assert where.size == 0 or np.abs(where - frame).max() <= 5, column  # the widest derivative's half: 0.4 s
        if "_" in column.rsplit(".", 1)[-1] and name in INVARIANT:
            assert where.size == 0, column  # a window has other values
        if "since" in column:
            continue  # looks back as far as to the last contact
        reach = 5 + 15 * float(column.rsplit("_", 1)[1][:-1]) if column.endswith("s") and column[-2].isdigit() else 5
        far = np.abs(np.arange(len(tracks)) - frame) > reach + 1
        # sums from the start of the recording round a little differently
        assert np.allclose(found.x_TF[far, k], before.x_TF[far, k], rtol=1e-6, atol=2e-3, equal_nan=True), column
    assert changed.any()


@pytest.mark.parametrize("name", sets.SETS)
def test_laboratories_with_few_parts_or_none_seen_are_served(name: str) -> None:
    few = mice(parts=("ear_left", "ear_right", "head", "tail_base"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if name in INVARIANT:
            assert np.isfinite(made(few, name).x_TF).all(axis=0).mean() > 0.85
        gone = replace(mice(), xy_TAPX=np.full_like(mice().xy_TAPX, np.nan))
        known = np.isfinite(made(gone, name).x_TF).any(axis=0)
        assert {n for n, k in zip(made(gone, name).names, known, strict=True) if k} <= {
            *("agent.seen", "pair.since.contact", "pair.since.contact.nose")
        }
        for frames in (0, 1, 2, 5):
            short = replace(mice(), xy_TAPX=mice().xy_TAPX[:frames])
            assert made(short, name).x_TF.shape == (frames, sets.WIDTHS[name])


def test_what_cannot_be_made_is_said() -> None:
    tracks = mice(seconds=1)
    with pytest.raises(ValueError, match="'v5'; must be one of raw28, v4, v6, alone, pair, alone_now, pair_now"):
        sets.features(tracks, "mouse1", "mouse2", "v5")
    with pytest.raises(ValueError, match="v4 needs a PCA"):
        sets.features(tracks, "mouse1", "mouse2", "v4")
    with pytest.raises(ValueError, match="2 components; the set v4 takes 16"):
        raw = coordinates.raw28(tracks, "mouse1", "mouse2")
        coordinates.v4(tracks, "mouse1", "mouse2", pca.fit([raw.x_TF], 2))
    with pytest.raises(ValueError, match="pair needs a target"):
        sets.features(tracks, "mouse1", "self", "pair")
    with pytest.raises(ValueError, match="target: mouse1, as the agent"):
        sets.features(tracks, "mouse1", "mouse1", "raw28")
    with pytest.raises(ValueError, match="animals: no mouse3"):
        sets.features(tracks, "mouse1", "mouse3", "raw28")


def test_a_table_holds_columns_with_names_that_differ() -> None:
    one = Table(("a", "b"), np.array([[0, 1], [1, np.nan], [2, 2]]))
    assert one.column("b").tolist() == pytest.approx([1, np.nan, 2], nan_ok=True)
    assert one.take(["b", "a"]).names == ("b", "a") and len(one) == 3
    with pytest.raises(ValueError, match="names must differ; a occur more than once"):
        Table(("a", "a"), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="for 1 names"):
        Table(("a",), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="no z; there are a, b"):
        one.column("z")
