"""Figures show what they are given: each bout where it is, in its action's colour; nothing is cut off or blank."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mabe_behavior import drawings, palette
from mabe_behavior.actions import ACTIONS, Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.simulation.labs import LABS
from shared_core import figures

pytestmark = pytest.mark.filterwarnings("error::UserWarning")
SNIFF, REAR = Behaviour("mouse1", "mouse2", "sniff"), Behaviour("mouse2", "self", "rear")


def pixels(path: Path) -> np.ndarray:
    """(height, width, 3)."""
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def where(path: Path, colour: str) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the pixels that have a colour, but for rounding."""
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return np.nonzero((np.abs(pixels(path) - rgb) <= 2).all(axis=-1))


def drawn(folder: Path, truth: Bouts | None, predicted: Bouts, labeled: tuple[Behaviour, ...], **more: object) -> Path:
    given = {"video": "v", "fps": 10.0, "seconds": 60.0, **more}
    return drawings.ethogram(truth, predicted, labeled, folder / "ethogram.png", **given)  # type: ignore[arg-type]


def bouts(*rows: tuple[Behaviour, int, int], video: str = "v") -> Bouts:
    return Bouts.of([(video, *one, start, stop) for one, start, stop in rows])


# ---- colours


def test_every_action_has_a_colour_of_its_own_and_keeps_it() -> None:
    assert set(palette.COLOUR_OF) == ACTIONS and len(set(palette.COLOUR_OF.values())) == len(ACTIONS)
    assert palette.OTHER not in palette.COLOUR_OF.values() and palette.colour("fly") == palette.OTHER
    assert {name: palette.colour(name) for name in ("attack", "mount", "sniff", "tussle")} == {
        "attack": "#d55e00",
        "mount": "#cc79a7",
        "sniff": "#0072b2",
        "tussle": "#e28e4c",
    }
    assert {action for lab in LABS for action in lab.actions} == set(palette.COMMON)


# Machado, Oliveira and Fernandes 2009, table of severity 1.0, for linear RGB
EYES = {
    "all receptors": np.eye(3),
    "no red ones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green ones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def cielab(colour: str, eye: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of #rrggbb as an eye sees it, under D65."""
    channel = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    relative = XYZ @ np.clip(eye @ linear, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", EYES)
def test_common_colours_differ_for_every_eye(eye: str) -> None:
    seen = {action: cielab(colour, EYES[eye]) for action, colour in palette.COMMON.items()}
    closest = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(seen, 2))
    assert closest[0] >= 15, closest
    assert max(of[0] for of in seen.values()) < 90  # to be seen on white


# ---- ethogram


def test_bars_lie_where_bouts_are(tmp_path: Path) -> None:
    truth = bouts((SNIFF, 0, 600), (REAR, 150, 450))
    path = drawn(tmp_path, truth, bouts((SNIFF, 0, 300)), (SNIFF, REAR))
    rows, columns = where(path, palette.colour("sniff"))
    left, right = columns.min(), columns.max() + 1
    low_half = rows > (rows.min() + rows.max()) / 2  # the predicted bar lies below the annotated one
    assert columns[low_half & (rows > rows.max() - 3)].max() == pytest.approx((left + right) / 2, abs=3)
    _, middle = where(path, palette.colour("rear"))
    assert middle.min() == pytest.approx(left + (right - left) / 4, abs=3)
    assert middle.max() == pytest.approx(left + (right - left) * 3 / 4, abs=3)
    said = figures.describe(path)
    assert said.width == 780 and said.is_chart and said.title == "What is done in v"
    assert '"1 → 2  sniff": mouse1 does it to mouse2' in said.caption and "in grey" in said.caption


def test_another_videos_bouts_are_not_drawn(tmp_path: Path) -> None:
    path = drawn(tmp_path, bouts((SNIFF, 0, 600), video="w"), bouts((REAR, 0, 600)), (SNIFF, REAR))
    assert not len(where(path, palette.colour("sniff"))[0]) and len(where(path, palette.colour("rear"))[0]) > 500
    assert "1 other behaviours were looked for" in figures.describe(path).caption


def test_what_nobody_looked_for_is_grey(tmp_path: Path) -> None:
    path = drawn(tmp_path, bouts((SNIFF, 0, 300)), bouts((REAR, 0, 300)), (SNIFF,))
    assert not len(where(path, palette.colour("rear"))[0]) and len(where(path, palette.OTHER)[0]) > 500


def test_without_annotations_only_predictions_are_drawn(tmp_path: Path) -> None:
    path = drawn(tmp_path, None, bouts((REAR, 0, 300)), ())
    assert len(where(path, palette.colour("rear"))[0]) > 500
    assert "Nobody annotated this video" in figures.describe(path).caption


def test_an_empty_ethogram_says_so(tmp_path: Path) -> None:
    path = drawn(tmp_path, Bouts.of([]), Bouts.of([]), (SNIFF, REAR))
    assert "2 other behaviours" in figures.describe(path).caption and pixels(path).std() > 1


def test_a_short_bout_in_a_long_recording_can_be_seen(tmp_path: Path) -> None:
    said, with_it, without = bouts((REAR, 0, 18000)), bouts((SNIFF, 9000, 9005)), bouts((SNIFF, 0, 1))
    one, other = (
        drawn(tmp_path / name, truth, said, (SNIFF, REAR), seconds=1800.0)
        for name, truth in (("with", with_it), ("without", without))
    )
    _, columns = np.nonzero(np.abs(pixels(one) - pixels(other)).sum(axis=-1) > 60)
    _, full = where(one, palette.colour("rear"))
    assert (np.abs(columns - (full.min() + full.max()) / 2) < 4).sum() > 5


def test_a_video_without_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seconds: 0; must be above 0"):
        drawn(tmp_path, None, Bouts.of([]), (SNIFF,), seconds=0.0)


def test_of_many_rows_those_with_most_are_drawn(tmp_path: Path) -> None:
    rows = [Behaviour("mouse1", f"mouse{k}", action) for k in (2, 3, 4) for action in palette.COMMON][:24]
    table = bouts(*((row, 0, 10 * (k + 1)) for k, row in enumerate(rows)))
    path = drawn(tmp_path, table, table, tuple(rows))
    assert "4 rows with less in them are left out" in figures.describe(path).caption
    one = drawn(tmp_path / "one", bouts((SNIFF, 0, 10)), bouts((SNIFF, 0, 10)), (SNIFF,))
    assert figures.describe(path).height > 2.5 * figures.describe(one).height


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=8),
    st.sampled_from([10.0, 24.99, 30.0, 120.0]),
    st.integers(1, 700),
)
def test_coverage_adds_up_to_the_time(steps: list[tuple[int, int]], fps: float, columns: int) -> None:
    rows, at = [], 0
    for gap, length in steps:
        rows.append((SNIFF, at + gap, at + gap + length))
        at += gap + length
    edges = np.linspace(0, (at + 1) / fps, columns + 1)
    found = drawings.coverage(bouts(*rows), fps, edges)
    share = found.get(SNIFF, np.zeros(columns))
    assert share.min() >= 0 and share.max() <= 1
    assert share @ np.diff(edges) == pytest.approx(sum(length for _, length in steps) / fps)


# ---- confusion and labs


@pytest.mark.parametrize("n", [2, 6, 9, 15])
def test_confusion_is_darkest_where_most_is(tmp_path: Path, n: int) -> None:
    names = ["none", *list(palette.COMMON)[: n - 1]]
    matrix = np.zeros((n, n), int)
    matrix[np.arange(n), np.arange(n)[::-1]] = 12_345  # everything is taken for its opposite
    matrix[0, 0] = 1
    path = drawings.confusion(matrix, names, tmp_path / "confusion.png")
    rows, columns = where(path, "#08306b")  # the darkest of matplotlib's Blues
    assert len(rows) > 2000 and np.corrcoef(rows, columns)[0, 1] < -0.7
    assert figures.describe(path).width == 780
    with pytest.raises(ValueError, match=rf"must be \({n + 1}, {n + 1}\), as there are {n + 1} names"):
        drawings.confusion(matrix, [*names, "more"], path)


def test_labs_are_drawn_with_their_intervals_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "labs.png"
    score = [0.5, np.nan, 0.7]
    found = drawings.labs(
        ["a", "b", "mean"], score, [0.45, np.nan, 0.6], [0.55, np.nan, 0.8], path, marks={"oracle": [0.9, 0.92, 0.91]}
    )
    assert found == path and figures.describe(path).title == "Score of each lab"
    _, dots = where(path, figures.COLOURS[0])
    _, marks = where(path, figures.COLOURS[1])
    assert len(dots) > 100 and len(marks) > 60
    rows, _ = where(path, "#b2d4e7")  # the bars' blue, three parts in ten
    assert len(rows) > 500
    with pytest.raises(ValueError, match="must be one of each lab"):
        drawings.labs(["a"], score, score, score, path)
    with pytest.raises(ValueError, match="must be 4 at most"):
        drawings.labs(["a"], [0.5], [0.4], [0.6], path, marks={name: [0.5] for name in "cdefg"})
