"""Lists of photographs: what they may say, and one clear line with its number for all else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retina_diffusion import jsonl
from retina_diffusion.channels import CHANNELS
from retina_diffusion.records import GRADES, text
from shared_core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "m.png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    return tmp_path


def listed(folder: Path, *rows: Any, name: str = "list.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_the_predecessors_lines(folder: Path) -> None:
    path = listed(
        folder,
        {"image_path": "a.png", "caption": "Drusen.", "mask_path": None},
        {"image_path": str(folder / "b.png"), "caption": None, "mask_path": "m.png", "grade": 2},
    )
    first, second = jsonl.read(path)
    assert (first.image, first.caption, first.masks, first.labels, first.known) == (
        *(folder / "a.png", "Drusen.", {}, None, ()),
    )
    assert (second.image, second.caption, second.labels, second.grade) == (
        *(folder / "b.png", None, folder / "m.png", 2),
    )
    assert [first.name, second.name] == ["000001", "000002"]
    assert second.where == f"{path}:2"


def test_masks_by_channel_and_what_null_says(folder: Path) -> None:
    path = listed(
        folder, {"image_path": "a.png", "mask_path": {"EX": "m.png", "MA": None}, "split": "val", "name": "x"}
    )
    (record,) = jsonl.read(path)
    assert record.masks == {"EX": folder / "m.png"} and record.known == ("MA", "EX")
    assert (record.split, record.name) == ("val", "x")


@pytest.mark.parametrize("grade", range(5))
@pytest.mark.parametrize("key", ["grade", "label"])
def test_a_grade_is_a_text(grade: int, key: str, folder: Path) -> None:
    (record,) = jsonl.read(listed(folder, {"image_path": "a.png", "grade": None} | {key: grade}))
    assert record.grade == grade
    assert text(record.caption, record.grade) == f"Fundus photograph, {GRADES[grade]}."


def test_a_caption_goes_before_the_grade() -> None:
    assert text("Drusen.", 3) == "Drusen." and text(None, None) == ""


def test_other_ends_of_lines_and_a_byte_order_mark(folder: Path) -> None:
    caption = "one\u2028two\x85three"
    line = json.dumps({"image_path": "a.png", "caption": caption}, ensure_ascii=False)
    path = folder / "list.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}".encode())
    assert [record.caption for record in jsonl.read(path)] == [caption, caption]
    assert [record.where for record in jsonl.read(path)] == [f"{path}:1", f"{path}:3"]


def test_a_folder_of_lists(folder: Path) -> None:
    listed(folder, {"image_path": "a.png"}, name="one.jsonl")
    listed(folder, {"image_path": "b.png"}, name="two.jsonl")
    assert [record.name for record in jsonl.read(folder)] == ["one-000001", "two-000001"]


GOOD = {"image_path": "a.png"}
WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": ("{'image_path'}", "is not JSON"),
    "cut off": ('{"image_path": "a.p', "is not JSON"),
    "endless": ("[" * 200_000, "is not JSON"),
    "no object": ([1], 'must be an object with "image_path"'),
    "no image": ({"caption": "x"}, 'must be an object with "image_path"'),
    "an unknown key": ({**GOOD, "captoin": "x"}, "unknown key 'captoin'; there are caption"),
    "an empty caption": ({**GOOD, "caption": "  "}, "caption is empty; write one, or null for none"),
    "a number as caption": ({**GOOD, "caption": 3}, "caption is empty"),
    "a grade beyond": ({**GOOD, "grade": 5}, "grade 5: must be 0 to 4"),
    "a grade in words": ({**GOOD, "grade": "2"}, "grade '2': must be 0 to 4"),
    "a broken grade": ({**GOOD, "grade": 2.0}, "grade 2.0: must be 0 to 4"),
    "true as grade": ({**GOOD, "grade": True}, "grade True: must be 0 to 4"),
    "an unknown split": ({**GOOD, "split": "dev"}, "split 'dev': must be train, val or test"),
    "a number as name": ({**GOOD, "name": 7}, "name 7: must be text"),
    "a missing image": ({"image_path": "c.png"}, "c.png: no such file"),
    "a folder as image": ({"image_path": "."}, "is a folder"),
    "a missing mask": ({**GOOD, "mask_path": "c.png"}, "c.png: no such file"),
    "a missing mask of a class": ({**GOOD, "mask_path": {"MA": "c.png"}}, "c.png: no such file"),
    "an unknown class": (
        {**GOOD, "mask_path": {"ma": "m.png"}},
        f"unknown channel 'ma'; there are {', '.join(CHANNELS)}",
    ),
    "a list of masks": ({**GOOD, "mask_path": ["m.png"]}, "must be null, a file, or files by channel"),
    "a zero byte": ({"image_path": "a\0.png"}, "no such file|can be no file's name"),
    "a name too long": ({"image_path": 5_000 * "a"}, "can be no file's name"),
    "nobody's home": ({"image_path": "~nobody-of-that-name/a.png"}, "can be no file's name"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_line_is_named_with_its_number(what: str, folder: Path) -> None:
    line, message = WRONG[what]
    path = listed(folder, GOOD, "", line)
    with pytest.raises(UserError, match=message) as caught:
        jsonl.read(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)


def test_other_text_than_utf8_is_named(folder: Path) -> None:
    (folder / "list.jsonl").write_bytes('{"image_path": "ä.png"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"list\.jsonl: is no UTF-8 text \(invalid continuation byte at byte 16\)"):
        jsonl.read(folder / "list.jsonl")


def test_nothing_to_read(folder: Path) -> None:
    with pytest.raises(UserError, match=r"holds no .jsonl file"):
        jsonl.read(folder)
    (folder / "list.jsonl").write_text("\n \n")
    with pytest.raises(UserError, match=r"list\.jsonl: lists no photographs"):
        jsonl.read(folder / "list.jsonl")
    (folder / "list.jsonl").unlink()
    (folder / "list.jsonl").mkdir()
    with pytest.raises(UserError, match="a file is where a folder should be, or the other way round"):
        jsonl.read(folder)


def test_names_that_others_give(folder: Path) -> None:
    """RetinaLogos' list, and what Lumina trains from."""
    about = {"id": "7", "width": 4, "height": 4}
    said = [{"from": "human", "value": "Describe it."}, {"from": "gpt", "value": "An eye."}]
    path = listed(folder, [{"image": "a.png", "caption": "An eye.", **about}], name="list.json")
    path.write_text(json.dumps(json.loads(path.read_text())))
    lines = listed(folder, {"path": "a.png", "prompt": "An eye."}, {"image": "a.png", "conversations": said})
    for record in (*jsonl.read(path), *jsonl.read(lines)):
        assert (record.image, record.caption) == (folder / "a.png", "An eye.")
    path.write_text(json.dumps([{"image": "a.png"}, {"image": "c.png"}]))
    with pytest.raises(UserError, match=r"list\.json: entry 2: .*c\.png: no such file"):
        jsonl.read(path)
    path.write_text('{"image": "a.png"}')
    with pytest.raises(UserError, match=r"list\.json: must be a list of objects"):
        jsonl.read(path)
    (silent,) = jsonl.read(listed(folder, {"image": "a.png", "conversations": []}))
    assert silent.caption is None
    with pytest.raises(UserError, match="caption is empty"):
        jsonl.read(listed(folder, {"image": "a.png", "conversations": [{"value": " "}]}))
    for twice in ({"image": "a.png", "path": "b.png"}, {"path": "a.png", "caption": "x", "prompt": "y"}):
        with pytest.raises(UserError, match=r"says (image_path|caption) once more; leave out one of them"):
            jsonl.read(listed(folder, twice))
