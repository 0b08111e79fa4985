"""Classes, windows, features on the disk, and probabilities of whole recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mabe_behavior import asking, examples, featurestore, inference, vocabulary
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.data_config import Features
from mabe_behavior.examples import Cutter, Piece, Windows
from mabe_behavior.featurestore import FeatureStore
from mabe_behavior.recording import Recording
from mabe_behavior.simulation import labs, simulator
from mabe_behavior.tracks import Tracks
from mabe_behavior.vocabulary import Relation, Vocabulary

KNOWN = Vocabulary((("sniff", "investigation"), ("attack",)), (("rear",),), ("one", "two"))


def recording(labeled: list[str], bouts: list[tuple], frames: int = 20, fps: float = 10.0) -> Recording:
    tracks = Tracks(np.ones((frames, 2, 1, 2)), ("mouse1", "mouse2"), ("nose",), fps, 10.0)
    looked_for = tuple(Behaviour(*text.split(",")) for text in labeled)
    return Recording("v", "one", tracks, Bouts.of([("v", *bout) for bout in bouts]), looked_for)


def test_three_states_of_a_label() -> None:
    """Marked, looked for and not there, not looked for; a class of two actions is there where either is."""
    one = recording(["mouse1,mouse2,sniff", "mouse1,self,rear"], [("mouse1", "mouse2", "sniff", 3, 5)])
    y = vocabulary.truth(one.annotations, Relation("mouse1", "mouse2"), KNOWN)
    assert y[:, 0].tolist() == [0] * 3 + [1] * 2 + [0] * 15
    assert (y[:, 1] == -1).all()
    assert (vocabulary.truth(one.annotations, Relation("mouse2", "mouse1"), KNOWN) == -1).all()
    assert (vocabulary.truth(one.annotations, Relation("mouse1", "self"), KNOWN) == 0).all()


def test_a_class_comes_out_as_the_action_that_is_looked_for() -> None:
    pair = Relation("mouse1", "mouse2")
    for action in ("sniff", "investigation"):
        assert KNOWN.called(pair, [Behaviour(*pair, action)]) == (action, None)
    both = [Behaviour(*pair, "investigation"), Behaviour(*pair, "sniff"), Behaviour("mouse2", "mouse1", "attack")]
    assert KNOWN.called(pair, both) == ("sniff", None)


def test_relations_are_those_that_are_looked_for_or_all() -> None:
    animals = ("mouse1", "mouse2")
    looked_for = [Behaviour("mouse1", "mouse2", "sniff"), Behaviour("mouse2", "self", "dig")]
    assert vocabulary.relations(animals, looked_for, KNOWN) == [("mouse1", "mouse2")]  # nobody learned to see digging
    every = vocabulary.relations(animals, (), KNOWN)
    assert set(every) == {("mouse1", "self"), ("mouse2", "self"), ("mouse1", "mouse2"), ("mouse2", "mouse1")}
    assert len(vocabulary.everything(animals, KNOWN)) == 6


def test_classes_of_training_recordings() -> None:
    rows = [
        {"lab": "b", "labeled": ["mouse1,mouse2,sniff", "mouse1,self,rear"], "bouts": []},
        {"lab": "a", "labeled": ["mouse1,mouse2,attack"], "bouts": [["mouse1", "mouse2", "attack", 0, 1]]},
    ]
    found = vocabulary.of(rows, (), with_alone=True)
    assert found == Vocabulary((("attack",), ("sniff",)), (("rear",),), ("a", "b"))
    assert (found.lab("b"), found.lab("c")) == (2, 0)
    assert Vocabulary.from_dict(found.as_dict()) == found
    assert vocabulary.of(rows, (), with_alone=False).kinds == ("pair",)
    with pytest.raises(ValueError, match="mount is looked for in no training recording"):
        vocabulary.of(rows, [("mount",)], True)
    with pytest.raises(ValueError, match="partly"):
        vocabulary.of(rows, [("sniff", "rear")], True)


def piece(frames: int = 50, lab: int = 1, fold: int = 0) -> Piece:
    """The first feature is the number of the frame, and so is where the label changes."""
    x = np.arange(frames, dtype=np.float16)[:, None] * np.ones((1, 3), np.float16)
    y = np.zeros((frames, 2), np.int8)
    y[20:23, 0] = 1
    y[:, 1] = -1
    return Piece(x, y, lab, fold)


@given(st.integers(-30, 70), st.integers(1, 60))
@settings(max_examples=60)
def test_a_window_takes_its_labels_along(start: int, length: int) -> None:
    """Whatever it begins with: every frame keeps its label, and outside the recording nobody looked."""
    one = piece()
    x, y = one.window(start, length)
    assert x.shape == (length, 3) and y.shape == (length, 2)
    for t in range(length):
        if 0 <= start + t < 50:
            assert x[t, 0] == start + t and y[t].tolist() == one.y_TK[start + t].tolist()
        else:
            assert np.isnan(x[t]).all() and (y[t] == -1).all()


def test_jitter_shifts_features_and_labels_alike() -> None:
    cutter = Cutter([piece(200)], 40, jitter=7, balance=0.0)
    torch.manual_seed(0)
    starts = set()
    for _ in range(100):
        batch = cutter.cut([2])
        start = int(batch["x"][0, 0, 0])
        starts.add(start)
        assert batch["y"][0].tolist() == piece(200).y_TK[start : start + 40].tolist()
    assert min(starts) == 80 - 7 and max(starts) == 80 + 7  # both ways


def test_balance_is_the_share_of_windows_around_bouts() -> None:
    """Classes are drawn first, then bouts: a rare action is seen as often as a common one."""
    one = piece(2000)
    one.y_TK[:, 1] = 0
    one.y_TK[500:1500:20, 1] = 1  # 50 bouts, against one of the other class
    for balance, low, high in ((0.0, 0.0, 0.08), (1.0, 0.4, 0.6)):
        cutter = Cutter([one], 16, jitter=0, balance=balance)
        torch.manual_seed(0)
        y = cutter.cut(list(range(len(cutter))) * 3)["y"]
        assert low <= (y[..., 0] == 1).any(dim=1).float().mean() <= high
    assert len(cutter) == 125


def test_windows_hold_both_kinds_and_short_recordings_are_filled_up() -> None:
    cutters = {
        "pair": Cutter([piece(100), piece(30, lab=2, fold=1)], 40, 0, 0.0),
        "alone": Cutter([piece(50)], 40, 0, 0.0),
    }
    data = Windows(cutters, share=1.0)
    assert len(data) == 4
    batch = data.__getitems__([0, 3])
    assert batch["pair.x"].shape == batch["alone.x"].shape == (2, 40, 3)
    assert batch["pair.lab"].tolist() == [1, 2] and batch["pair.fold"].tolist() == [0, 1]
    assert torch.isnan(batch["pair.x"][1, 30:]).all() and (batch["pair.y"][1, 30:] == -1).all()
    assert len(Windows(cutters, share=2.5)) == 10


@given(st.integers(1, 300), st.integers(8, 64), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
@settings(max_examples=50)
def test_windows_cover_a_recording(frames: int, length: int, overlap: float) -> None:
    starts = inference.starts(frames, length, overlap)
    covered = np.zeros(max(frames, length), int)
    for start in starts:
        assert start >= 0 and (start + length <= frames or frames <= length)
        covered[start : start + length] += 1
    assert (covered[:frames] > 0).all()


@given(st.lists(st.integers(1, 90), min_size=1, max_size=4), st.sampled_from([0.0, 0.5]))
@settings(max_examples=20, deadline=None)
def test_what_a_network_says_of_frames_is_what_comes_out(lengths: list[int], overlap: float) -> None:
    """A network that looks at frames one by one says the same of a recording whatever windows it is cut into."""
    rng = np.random.default_rng(0)
    streams = [(rng.normal(size=(n, 3)).astype(np.float16), n) for n in lengths]

    def ask(x_BLF: torch.Tensor, lab_B: torch.Tensor) -> torch.Tensor:
        one = x_BLF.float().nan_to_num()[..., :2] + lab_B[:, None, None]
        return torch.stack([one, 2 * one])

    found = list(inference.logits(ask, streams, 32, overlap, torch.device("cpu")))
    assert len(found) == len(streams)
    for (x_TF, lab), logits in zip(streams, found, strict=True):
        wanted = x_TF[:, :2].astype(np.float32) + lab
        assert np.allclose(logits, np.stack([wanted, 2 * wanted]), atol=1e-5)


def test_probabilities_go_back_to_the_videos_frames() -> None:
    """As labels go to the common rate, and back: each frame gets what was said at its time."""
    ramp = np.linspace(0, 1, 61, dtype=np.float32)[:, None]  # two seconds at 30 Hz
    for frames, fps in ((241, 120.0), (21, 10.0), (51, 25.0), (61, 30.0)):
        found = asking.at_frames(ramp, 30.0, frames, fps)
        assert np.allclose(found[:, 0], np.arange(frames) / fps / 2, atol=1e-3)
    assert asking.at_frames(ramp[:0], 30.0, 4, 30.0).shape == (4, 1)


def test_features_are_kept_and_made_again_where_damaged(tmp_path: Path) -> None:
    one = simulator.simulate(labs.lab("resident"), 0, 5.0)
    wanted = Features()
    store = FeatureStore.of(tmp_path, "print", wanted)
    pair = Relation("mouse1", "mouse2")
    assert store.open(0, pair, 150) is None
    assert list(store.fill([0], lambda _: (one.tracks, [pair]))) == [1]
    found = store.open(0, pair, 150)
    assert found is not None
    computed = featurestore.compute(featurestore.seen(one.tracks, wanted), pair, wanted)
    assert np.array_equal(found, computed, equal_nan=True)
    assert found.dtype == np.float16 and found.shape[1] == featurestore.width("pair", wanted)
    assert store.open(0, pair, 149) is None
    store.path(0, pair).write_bytes(store.path(0, pair).read_bytes()[:300])
    assert store.open(0, pair, 150) is None


def test_other_settings_and_another_set_have_other_folders(tmp_path: Path) -> None:
    folders = {
        FeatureStore.of(tmp_path, mark, wanted).folder
        for mark in ("a", "b")
        for wanted in (Features(), Features(fps=25), Features(fill=0), Features(pair="raw28"))
    }
    assert len(folders) == 8
    assert FeatureStore.of(tmp_path, "a", Features(workers=1)).folder in folders


def test_bouts_of_each_class() -> None:
    found = examples._bouts([piece(), piece()])
    assert found == [[(0, 20, 23), (1, 20, 23)]]
