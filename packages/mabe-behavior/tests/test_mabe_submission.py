"""Submissions: what is written is valid, and `check` finds exactly what the score refuses or passes over."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mabe_behavior import submission
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.metric import score
from shared_core.errors import UserError

PAIR, ALONE = ("mouse1", "mouse2"), ("mouse1", "self")
LABELED = {
    "7": [Behaviour(*PAIR, "sniff"), Behaviour(*PAIR, "attack"), Behaviour(*ALONE, "rear")],
    "8": [Behaviour(*PAIR, "sniff")],
}
HEADER = ",".join(submission.HEADER) + "\n"


def test_what_is_written_is_read_and_valid(tmp_path: Path) -> None:
    bouts = Bouts.of([("7", *PAIR, "sniff", 0, 5), ("7", *ALONE, "rear", 2, 9), ("7", *PAIR, "attack", 5, 6)])
    submission.write(tmp_path / "s.csv", bouts)
    assert (tmp_path / "s.csv").read_text().splitlines()[:2] == [HEADER.strip(), "0,7,mouse1,mouse2,sniff,0,5"]
    assert submission.read(tmp_path / "s.csv").rows == bouts.rows
    assert submission.check(tmp_path / "s.csv", LABELED, {"7": 9, "8": 5}) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no bout, which the score refuses"),
        ([("7", *PAIR, "sniff", 5, 5)], "sniff of mouse1 to mouse2 in video 7, frames 5 to 5"),
        ([("7", *PAIR, "sniff", -1, 5)], "frames -1 to 5"),
        ([("7", *PAIR, "sniff", 0, 5), ("7", *PAIR, "attack", 4, 6)], "attack and sniff .* both in frame 4"),
    ],
)
def test_what_the_score_refuses_is_not_written(tmp_path: Path, rows: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        submission.write(tmp_path / "s.csv", Bouts.of(rows))
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("rows", "line", "message", "fatal"),
    [
        ("0,7,1,2,sniff,0,5\n", 2, "agent '1', target '2'; must be mouse1, mouse2", False),
        ("0,7,mouse1,mouse1,rear,0,5\n", 2, "the target is the agent, mouse1; must be self", False),
        ("0,7,mouse1,mouse2,dance,0,5\n", 2, "action 'dance' is none of the challenge's 37", False),
        ("0,9,mouse1,mouse2,sniff,0,5\n", 2, "video 9 is not asked for; the row is not counted", False),
        ("0,8,mouse1,mouse2,attack,0,5\n", 2, "mouse1,mouse2,attack was not looked for in video 8", False),
        ("0,7,mouse1,mouse2,sniff,5,5\n", 2, "has no frame", False),
        ("0,7,mouse1,mouse2,sniff,-2,5\n", 2, "start_frame -2; must be 0 or more", False),
        ("0,7,mouse1,mouse2,sniff,0,101\n", 2, "stop_frame 101 lies past the 100 frames of video 7", False),
        ("0,7,mouse1,mouse2,sniff,6,5\n", 2, "stop_frame 5 lies before start_frame 6", True),
        ("0,9,mouse1,mouse2,sniff,6,5\n", 2, "stop_frame 5 lies before start_frame 6", True),  # though not asked for
        ("0,7,mouse1,mouse2,sniff,0,5.0\n", 2, "frames '0' to '5.0'; must be whole numbers", True),
        ("0,7,mouse1,mouse2,sniff,,5\n", 2, "frames '' to '5'", True),
        ("0,7,mouse1,mouse2,sniff,0\n", 2, "has 6 cells; must be 7", True),
        ("0,7,mouse1,mouse2,sniff,0,5\n0,7,mouse1,self,rear,0,5\n", 3, "row_id '0' is also that of line 2", True),
        (
            "0,7,mouse1,mouse2,attack,4,9\n1,7,mouse1,mouse2,sniff,0,5\n",
            2,
            r"attack and sniff \(line 3\) of mouse1 to mouse2 in video 7 both in frame 4",
            True,
        ),
        (  # the first goes on although the second, of the same action, has ended
            "0,7,mouse1,mouse2,sniff,0,9\n1,7,mouse1,mouse2,sniff,2,5\n2,7,mouse1,mouse2,attack,6,8\n",
            4,
            r"attack and sniff \(line 2\)",
            True,
        ),
        ("", 1, "has no row below the header, which the score refuses", True),
    ],
)
def test_every_rule_has_its_line(tmp_path: Path, rows: str, line: int, message: str, fatal: bool) -> None:
    (tmp_path / "s.csv").write_text(HEADER + rows)
    found = submission.check(tmp_path / "s.csv", LABELED, {"7": 100, "8": 100})
    (one,) = [problem for problem in found if problem.fatal == fatal]
    assert one.line == line and str(one).startswith(f"line {line}: ")
    assert re.search(message, one.text), one.text


def test_overlaps_that_are_none(tmp_path: Path) -> None:
    rows = ["7,mouse1,mouse2,sniff,0,9", "7,mouse1,mouse2,sniff,2,5"]  # the same action
    rows += ["7,mouse1,self,rear,0,9", "7,mouse1,mouse2,attack,9,12"]  # another target; the frame after
    (tmp_path / "s.csv").write_text(HEADER + "".join(f"{k},{row}\n" for k, row in enumerate(rows)))
    assert submission.check(tmp_path / "s.csv", LABELED) == []
    assert len(submission.read(tmp_path / "s.csv")) == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"row_id,video_id\n0,7\n", "line 1: has no column agent_id, target_id"),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"0,7,mouse1,mouse2,sniff,0,5\n", "a byte-order mark precedes the header"),
        (b"", "line 1: has no column row_id"),
        (b"\xff\xff", "is no text file"),
    ],
)
def test_what_is_no_submission(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "s.csv").write_bytes(data)
    with pytest.raises(UserError, match=message):
        submission.read(tmp_path / "s.csv")
    with pytest.raises(UserError, match="no such file"):
        submission.check(tmp_path / "none.csv")


bout = st.tuples(
    st.sampled_from(["7", "8", "9"]),
    st.sampled_from([PAIR, ALONE, ("mouse2", "mouse1")]),
    st.sampled_from(["sniff", "attack", "rear"]),
    st.integers(0, 12),
    st.integers(-1, 5),
).map(lambda one: (one[0], *one[1], one[2], one[3], one[3] + one[4]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(bout, min_size=1, max_size=7))
def test_check_and_score_agree(tmp_path: Path, rows: list) -> None:
    """Fatal is what the score raises for; and of the rest, rows that are not counted change nothing."""
    (tmp_path / "s.csv").write_text(HEADER + "".join(f"{k},{','.join(map(str, row))}\n" for k, row in enumerate(rows)))
    found = submission.check(tmp_path / "s.csv", LABELED)
    truth = Bouts.of([("7", *PAIR, "sniff", 0, 6), ("8", *PAIR, "sniff", 3, 6)])
    lab_of = {"7": "A", "8": "B"}
    if any(problem.fatal for problem in found):
        with pytest.raises(ValueError):
            score(truth, Bouts.of(rows), lab_of, LABELED)
        return
    value = score(truth, Bouts.of(rows), lab_of, LABELED).value
    lines = {problem.line for problem in found if problem.text.endswith("the row is not counted")}
    counted = [row for k, row in enumerate(rows) if k + 2 not in lines]
    assert all(Behaviour(*row[1:4]) in LABELED[row[0]] for row in counted)
    if counted:
        assert score(truth, Bouts.of(counted), lab_of, LABELED).value == value
