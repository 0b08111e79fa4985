"""The answer file: what `write` writes passes `check`, and every defect is named with its line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_compare_stacking import submission
from shared_core.errors import UserError

IDS = ["PUB_0000000", "PUB_0000001", "PUB_0000002"]
GOOD = "id,label\nPUB_0000000,1\nPUB_0000001,0\nPUB_0000002,1\n"


def test_the_format_is_the_courses(tmp_path: Path) -> None:
    path = tmp_path / "pred_public.csv"
    submission.write(path, np.array(IDS), np.array([1, 0, 1], np.int8))
    assert path.read_bytes() == GOOD.encode()
    submission.check(path, IDS)


@given(
    answers=st.dictionaries(st.text(min_size=1).filter(str.isprintable), st.sampled_from([0, 1]), min_size=1),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back_and_valid_in_any_order(
    answers: dict[str, int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("round") / "answers.csv"
    submission.write(path, list(answers), list(answers.values()))
    assert submission.read(path) == answers
    submission.check(path, data.draw(st.permutations(list(answers))))


@given(row=st.integers(0, 2), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_row_less_or_twice_is_found(row: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "answers.csv"
    lines = GOOD.splitlines()
    changed = lines[: row + 1] + lines[row + 2 :] if data.draw(st.booleans()) else [*lines, lines[row + 1]]
    path.write_text("\n".join(changed) + "\n")
    with pytest.raises(UserError, match=IDS[row]):
        submission.check(path, IDS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"\n \n", ["empty"]),
        (b"\xef\xbb\xbf" + GOOD.encode(), ["byte-order mark"]),
        (GOOD.encode("utf-16"), ["byte-order mark"]),
        (GOOD.replace(",", ";").encode(), ["line 1", "semicolons"]),
        (GOOD.replace(",", "\t").encode(), ["line 1", "tabs"]),
        (GOOD.replace("id,label", "id,prediction").encode(), ["line 1", "id,prediction"]),
        (GOOD.replace("id,label", "label,id").encode(), ["line 1", "label,id"]),
        (GOOD.replace("id,label", "ID,Label").encode(), ["line 1"]),
        (GOOD.replace("id,label\n", "").encode(), ["line 1", "PUB_0000000,1"]),
        (b"id,label\n", ["no row"]),
        (GOOD.replace("1,0", "1,2").encode(), ["line 3", "'2'"]),
        (GOOD.replace("1,0", "1,-1").encode(), ["line 3", "'-1'"]),
        (GOOD.replace("1,0", "1,0.0").encode(), ["line 3", "'0.0'"]),
        (GOOD.replace("1,0", "1,nan").encode(), ["line 3", "'nan'"]),
        (GOOD.replace("1,0", "1,").encode(), ["line 3", "no label"]),
        (GOOD.replace("1,0", "1").encode(), ["line 3", "1 columns"]),
        (GOOD.replace("1,0", "1,0,0.3").encode(), ["line 3", "3 columns"]),
        (GOOD.replace("1,0\n", "1,0\n\n").encode(), ["line 4", "empty"]),
        (GOOD.replace("0000002", "0000001").encode(), ["line 4", "also on line 3", "PUB_0000002"]),
        (GOOD.replace("0000002", "0000009").encode(), ["PUB_0000009", "line 4", "without an answer", "PUB_0000002"]),
        (GOOD.replace("PUB_0000002,1\n", "").encode(), ["1 id without an answer", "PUB_0000002"]),
        ((GOOD + "PRV_0000000,1\n").encode(), ["1 unknown id", "PRV_0000000", "line 5"]),
        (GOOD.encode() + b"\xff\xfe,1\n", ["line 5", "UTF-8"]),
        (GOOD.encode() + b'"open,1\n' + b"x" * 200_000, ["line"]),
    ],
)
def test_every_defect_is_refused_and_named(content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        submission.check(path, IDS)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message


def test_crlf_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode().rstrip())
    submission.check(path, IDS)


def test_many_defects_stay_one_short_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("id,label\n" + "".join(f"PUB_{row:07d},7\n" for row in range(500)))
    with pytest.raises(UserError, match=r"line 2: .*line 3: .*line 4: .*and 498 more$") as caught:
        submission.check(path, IDS)
    assert len(str(caught.value)) < 500


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        submission.check(tmp_path / "none.csv", IDS)


@pytest.mark.parametrize(
    ("ids", "labels", "words"),
    [
        (IDS, [1, 0], "one label per id"),
        (["a", "a"], [1, 0], "occurs twice"),
        (["a", ""], [1, 0], "empty"),
        (["a", "b\r"], [1, 0], "line break"),
        (["a", "b"], [1, 2], "label of b is 2"),
        (["a", "b"], [1, float("nan")], "label of b is nan"),
        (["a", "b"], [0.7, 1], "label of a is 0.7"),
    ],
)
def test_wrong_answers_are_never_written(ids: list[str], labels: list[float], words: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    with pytest.raises(UserError, match=words):
        submission.write(path, ids, labels)
    assert not list(tmp_path.iterdir())
