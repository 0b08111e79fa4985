"""YAML as this project reads it: no silent conversions, every key once, the line of everything known."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core import yamlfile
from shared_core.errors import UserError


def value(text: str) -> object:
    return yamlfile.parse(f"x: {text}").data["x"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-3", 1e-3),
        ("3e+4", 3e4),
        ("1E5", 1e5),
        ("2.5e3", 2500.0),
        ("-1e-08", -1e-8),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("0.0", 0.0),
        ("+2.0", 2.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
    ],
)
def test_floats_are_floats(text: str, number: float) -> None:
    assert value(text) == number
    assert isinstance(value(text), float)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("12", 12), ("-7", -7), ("+3", 3)])
def test_integers_are_integers(text: str, number: int) -> None:
    assert value(text) == number
    assert isinstance(value(text), int)


@pytest.mark.parametrize(
    "text",
    [
        *("on", "off", "yes", "no", "On", "y", "n", "017", "0o17", "0x1F", "0b11", "1_000", "12:30:00", "190:20:30"),
        *("2024-05-01", "2001-12-14t21:59:43.10-05:00", "=", "none", "None", "nan", "inf", "1e", "e5", ".", "1.2.3"),
    ],
)
def test_words_stay_words(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "constant"), [("true", True), ("False", False), ("null", None), ("~", None), ("", None)]
)
def test_constants(text: str, constant: object) -> None:
    assert value(text) is constant


def test_quotes_make_a_string_of_anything() -> None:
    assert value('"1e-3"') == "1e-3"
    assert value("'true'") == "true"


def test_lines_of_keys_and_items() -> None:
    text = "# comment\na: 1\n\nb:\n  c: 2\n  d:\n    - 3\n    - e: 4\nf: {g: 5,\n  h: 6}\n"
    document = yamlfile.parse(text)
    assert document.data == {"a": 1, "b": {"c": 2, "d": [3, {"e": 4}]}, "f": {"g": 5, "h": 6}}
    expected = {("a",): 2, ("b",): 4, ("b", "c"): 5, ("b", "d"): 6, ("b", "d", 0): 7, ("b", "d", 1, "e"): 8}
    expected |= {("f",): 9, ("f", "g"): 9, ("f", "h"): 10}
    assert {key: document.line(key) for key in expected} == expected
    assert document.line(("b", "z")) is None


def test_every_duplicate_is_named_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("a: 1\nb:\n  c: 2\n  c: 3\n  d: {e: 1, e: 2}\na: 4\n")
    with pytest.raises(UserError) as error:
        yamlfile.read(file)
    assert str(error.value).splitlines() == [
        f"{file}:4: b.c: already set on line 3; delete one of the two",
        f"{file}:5: b.d.e: already set on line 5; delete one of the two",
        f"{file}:6: a: already set on line 1; delete one of the two",
    ]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a: 1\nb: c: d\n", 2, "second `:`"),
        ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("- 1\n- 2\n", 1, "not a single list"),
        ("just words\n", 1, "not a single word"),
        ("a: !!python/object/apply:os.system [echo]\n", 1, "not allowed"),
        ("a: 1\nb: !!set {x: null}\n", 2, "not allowed"),
        ("a: !!binary aGVsbG8=\n", 1, "not allowed"),
        ("a: !mine 3\n", 1, "not allowed"),
        ("a: 1\n? [b, c]\n: 2\n", 2, "must be a word"),
        ("a: 1\ntrue: 2\n", 2, "must be a word"),
        ("a: 1\n1.5: 2\n", 2, "must be a word"),
        ("a: &x [1, *x]\n", 1, "contains itself"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\nb: \x07\n", 2, "U+0007"),
    ],
)
def test_defects_are_one_line_with_their_place(tmp_path: Path, text: str, line: int, says: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        yamlfile.read(file)
    message = str(error.value)
    assert message.startswith(f"{file}:{line}: ")
    assert says in message
    assert "\n" not in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin1.yaml").write_bytes("a: é".encode("latin-1"))
    (tmp_path / "huge.yaml").write_bytes(b"#" * (yamlfile.MAX_BYTES + 1))
    for name, says in [
        ("latin1.yaml", "UTF-8"),
        ("huge.yaml", "larger"),
        ("none.yaml", "no such file"),
        (".", "cannot"),
    ]:
        with pytest.raises(UserError, match=says) as error:
            yamlfile.read(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")


def test_a_file_that_aliases_blow_up_is_refused() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{other}: &{other} [*{one}, *{one}, *{one}, *{one}, *{one}, *{one}, *{one}, *{one}, *{one}]\n"
    with pytest.raises(UserError, match="expands to more than"):
        yamlfile.parse(text)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UserError, match="nested too deeply"):
        yamlfile.parse("a: " + "[" * 5000 + "]" * 5000)


def test_ordinary_aliases_work() -> None:
    assert yamlfile.parse("a: &a {b: 1}\nc: *a\n").data == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n", "\ufeff"])
def test_empty_files_are_empty_mappings(text: str) -> None:
    assert yamlfile.parse(text.removeprefix("\ufeff")).data == {}


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yamlfile.read(file).data == {"a": 1}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
documents = st.dictionaries(
    st.text(),
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)),
    max_size=5,
)


@settings(deadline=None)
@given(documents)
def test_what_is_dumped_reads_back_the_same(data: dict) -> None:
    again = yamlfile.parse(yamlfile.dump(data)).data
    assert again == data
    assert repr(again) == repr(data)  # 1 and 1.0 and True are not the same here


@settings(deadline=None)
@given(
    st.sampled_from(["017", "1e-3", "on", "null", "~", "12:30:00", "2024-05-01", "0x1F", "1_0", "=", "<<", ".nan", "-"])
)
def test_strings_that_look_like_something_else_are_quoted(text: str) -> None:
    assert yamlfile.parse(yamlfile.dump({"x": text})).data == {"x": text}


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}#&*!|>'\"%@`,?\n \t01.")), max_size=40))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        yamlfile.parse(text)
    except UserError as error:
        assert str(error).startswith("<text>")
