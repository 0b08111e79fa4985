"""MABe22's mice: axes as its files have them, hidden tasks by frame or by clip."""

from pathlib import Path

import numpy as np
import pytest

from mabe_behavior.formats import mabe22
from shared_core.errors import UserError

RNG = np.random.default_rng(0)
T = 40


def points(frames: int = T) -> np.ndarray:
    return RNG.integers(1, 850, (frames, 3, 12, 2)).astype(np.float64)


def saved(path: Path, held: object) -> Path:
    np.save(path, held, allow_pickle=True)  # as the data set's authors did
    return path


def train(**change: object) -> dict:
    labels = np.stack([RNG.integers(0, 2, T), np.ones(T)])
    clips = {name: {"keypoints": points(), "annotations": labels} for name in ("AB12", "CD34")}
    return {"sequences": clips, "vocabulary": ["chases", "lights"], **change}


def test_axes_are_frame_mouse_part_xy_and_zero_is_missing(tmp_path: Path) -> None:
    held = train()
    held["sequences"]["AB12"]["keypoints"][7, 2, 4] = 0
    first, second = mabe22.read(saved(tmp_path / "mouse_triplet_train.npy", held))
    assert (first.name, second.name, first.split, first.lab) == ("AB12", "CD34", "train", "MABe22")
    assert first.tracks.animals == ("mouse1", "mouse2", "mouse3") and first.tracks.parts[4] == "forepaw_left"
    assert np.array_equal(first.tracks.xy_TAPX[9, 1, 5], held["sequences"]["AB12"]["keypoints"][9, 1, 5])
    assert np.argwhere(~first.tracks.seen_TAP).tolist() == [[7, 2, 4]]
    assert first.tracks.pixels_per_cm == pytest.approx(850 / 52)
    assert first.clip_labels == {"lights": 1.0} and list(first.frame_labels) == ["chases"]
    assert np.array_equal(first.frame_labels["chases"], held["sequences"]["AB12"]["annotations"][0])
    assert first.labeled == () and len(first.bouts) == 0


def test_a_task_of_clips_that_changes_within_one_is_one_of_frames(tmp_path: Path) -> None:
    held = train(vocabulary=["chases", "time_of_day"])
    held["sequences"]["CD34"]["annotations"] = np.stack([np.zeros(T), np.arange(T)])
    first, second = mabe22.read(saved(tmp_path / "mouse_triplet_train.npy", held))
    assert not first.clip_labels and np.array_equal(second.frame_labels["time_of_day"], np.arange(T))


def labels(**change: object) -> dict:
    values = np.concatenate([RNG.integers(0, 2, (1, 2 * T)), np.repeat([[3.0, 5.0]], T, axis=1)])
    spans = {"EF56": (T, 2 * T), "GH78": (0, T)}
    kinds = ["Discrete", "Continious"]
    return {
        **{
            "label_array": values,
            "frame_number_map": spans,
            "task_type": kinds,
            "vocabulary": ["huddles", "experiment_day"],
        },
        **change,
    }


def test_the_test_clips_and_their_labels(tmp_path: Path) -> None:
    clips = {"sequences": {name: {"keypoints": points()} for name in ("EF56", "GH78")}}
    path = saved(tmp_path / "mouse_triplet_test.npy", clips)
    known = labels()
    where = saved(tmp_path / "mouse_triplets_test_labels.npy", known)
    first, second = mabe22.read(path, where)
    assert (first.clip_labels, second.clip_labels) == ({"experiment_day": 5.0}, {"experiment_day": 3.0})
    assert np.array_equal(first.frame_labels["huddles"], known["label_array"][0, T:])
    assert first.continuous == {"experiment_day"} and first.split == "test"
    assert [one.clip_labels for one in mabe22.read(tmp_path)] == [first.clip_labels, second.clip_labels]
    assert mabe22.read(path)[0].frame_labels == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_type": ["Discrete", "Fuzzy"]}, "task_type .*must be Discrete or Continious"),
        ({"task_type": ["Discrete"]}, "one for each of 2 tasks"),
        ({"frame_number_map": {"EF56": (0, T), "GH78": (T, 3 * T)}}, f"GH78 has {T} to {3 * T} of {2 * T} frames"),
        ({"frame_number_map": {"EF56": (0, T - 1), "GH78": (0, T)}}, rf"EF56: labels of shape \(2, {T - 1}\)"),
        ({"frame_number_map": {"EF56": (0, T)}}, "has no labels of GH78"),
        ({"label_array": np.zeros(T)}, r"must be \(tasks, frames\)"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, change: dict[str, object], message: str) -> None:
    clips = {"sequences": {name: {"keypoints": points()} for name in ("EF56", "GH78")}}
    path = saved(tmp_path / "mouse_triplet_test.npy", clips)
    with pytest.raises(UserError, match=message):
        mabe22.read(path, saved(tmp_path / "labels.npy", labels(**change)))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([1, 2], r"must hold \{sequences"),
        ({"sequences": {"a": {}}}, "a: has no array `keypoints`"),
        (
            {"sequences": {"a": {"keypoints": np.zeros((T, 3, 2, 12))}}},
            r"must be \(frames, 3 mice, 12 parts, x and y\)",
        ),
        ({"sequences": {"a": {"keypoints": np.zeros((T, 2, 2, 7))}}}, "looks like CalMS21, --source calms21"),
        ({"sequences": {"a": {"keypoints": np.full((T, 3, 12, 2), 9), "annotations": np.zeros((1, T))}}}, r"\(0 tasks"),
        ({"sequences": {"a": {"keypoints": np.zeros((T, 3, 12, 2))}}}, "a: no point is seen in any frame"),
        ({"sequences": {"a": {"keypoints": Path("a")}}}, r"more than arrays \(it asks for pathlib"),
    ],
)
def test_what_are_no_mice_of_mabe22(tmp_path: Path, held: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mabe22.read(saved(tmp_path / "mouse_triplet_train.npy", held))


def test_a_folder_without_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no mouse_triplet_train\.npy"):
        mabe22.read(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        mabe22.read(tmp_path / "none")
    for name in ("mouse_triplet_train.npy", "mouse_triplet_train_copy.npy"):
        saved(tmp_path / name, train())
    with pytest.raises(UserError, match="has a clip twice"):
        mabe22.read(tmp_path)
