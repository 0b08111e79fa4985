"""Tables of bouts and of frames."""

import csv
from pathlib import Path

import numpy as np
import pytest

from mabe_behavior import spreadsheet
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts

SNIFF, REAR = Behaviour("mouse1", "mouse2", "sniff"), Behaviour("mouse1", "self", "rear")


def test_bouts_in_frames_and_seconds(tmp_path: Path) -> None:
    spreadsheet.write_bouts(tmp_path / "b.csv", Bouts.of([("7", *SNIFF, 30, 75)]), {"7": 30.0})
    with (tmp_path / "b.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert tuple(row) == spreadsheet.BOUTS
    assert list(row.values()) == ["7", "mouse1", "mouse2", "sniff", "30", "75", "1", "2.5", "1.5"]
    with pytest.raises(ValueError, match="fps: none for video 7"):
        spreadsheet.write_bouts(tmp_path / "b.csv", Bouts.of([("7", *SNIFF, 30, 75)]), {"8": 30.0})


def test_a_value_for_each_frame(tmp_path: Path) -> None:
    values = {SNIFF: np.array([0.25, 1.0, 0.1234567], np.float32), REAR: np.array([True, False, True])}
    spreadsheet.write_frames(tmp_path / "f.csv", values, 25.0)
    assert (tmp_path / "f.csv").read_text().splitlines() == [
        "frame,seconds,mouse1 mouse2 sniff,mouse1 self rear",
        "0,0,0.25,1",
        "1,0.04,1,0",
        "2,0.08,0.1235,1",
    ]


@pytest.mark.parametrize("values", [{}, {SNIFF: np.zeros(3), REAR: np.zeros(4)}, {SNIFF: np.zeros((3, 2))}])
def test_values_that_are_no_table(tmp_path: Path, values: dict) -> None:
    with pytest.raises(ValueError, match="must be of one length"):
        spreadsheet.write_frames(tmp_path / "f.csv", values, 25.0)
    assert not (tmp_path / "f.csv").exists()
