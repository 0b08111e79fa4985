"""A user's own function by its dotted name: found, and every mistake one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from shared_core.errors import UserError
from shared_core.userdefined import UserFunction, load, title

KEY = "loss.function"
Writer = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    """Writes modules into an empty working directory; they and the search path are gone after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)

    def write_(text: str, path: str = "mine_own.py") -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    yield write_
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mine_own", "mine_box", "mine_absent"):
            del sys.modules[name]


def refused(name: str) -> str:
    """The one line that refuses a name."""
    with pytest.raises(UserError) as caught:
        load(name, KEY, own=True)
    message = str(caught.value)
    assert message.startswith(f"{KEY}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["mine_own:double", "mine_own.double"])
def test_a_function_of_the_working_directory(write: Writer, name: str) -> None:
    write("def double(x):\n    return 2 * x\n")
    function = load(name, KEY, own=True)
    assert function(21) == 42
    assert title(function) == str(function) == f"{KEY}: {name}"


@pytest.mark.parametrize("name", ["mine_box.inner.deep:half", "mine_box.inner.deep.half"])
def test_a_function_of_a_package(write: Writer, name: str) -> None:
    write("from mine_box.inner.beside import TWO\ndef half(x):\n    return x / TWO\n", "mine_box/inner/deep.py")
    write("TWO = 2\n", "mine_box/inner/beside.py")
    assert load(name, KEY, own=True)(3) == 1.5


def test_a_function_of_an_installed_package() -> None:
    loss = load("torch.nn.functional:mse_loss", KEY, own=True)
    assert float(loss(torch.ones(3), torch.zeros(3))) == 1.0


def test_no_file_here_hides_an_installed_module(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    write("def rgb_to_hsv(*rgb):\n    return 'mine'\n", "colorsys.py")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert load("colorsys:rgb_to_hsv", KEY, own=True)(0, 0, 0) == (0, 0, 0)
    load("colorsys:rgb_to_hsv", KEY, own=True)
    assert sys.path[-1] == str(Path.cwd()) and sys.path.count(str(Path.cwd())) == 1


def test_a_file_younger_than_the_last_look(write: Writer) -> None:
    """Python remembers a folder's files until the folder's time changes, which has its granularity."""
    assert "no module mine_own" in refused("mine_own:f")
    before = Path.cwd().stat().st_mtime_ns
    write("def f():\n    return 1\n")
    os.utime(Path.cwd(), ns=(before, before))
    assert load("mine_own:f", KEY, own=True)() == 1


def test_a_foreign_configuration_runs_nothing(write: Writer) -> None:
    write("from pathlib import Path\nPath('ran').touch()\ndef f():\n    pass\n")
    with pytest.raises(UserError, match=r"^loss\.function: mine_own:f is not run, .* came from elsewhere; set "):
        load("mine_own:f", KEY, own=False)
    assert not Path("ran").exists()
    load("mine_own:f", KEY, own=True)
    assert Path("ran").exists()


@pytest.mark.parametrize(
    "name", ["", "loss", ":f", "mine_own:", "mine own:f", "a..b:f", "os;x:f", "./mine_own:f", "a:b:c"]
)
def test_what_is_no_name(name: str) -> None:
    assert refused(name) == f"{KEY}: must be a Python name like package.module:function, not {name!r}"


@pytest.mark.parametrize("name", ["mine_own.py:f", "folder/mine_own.py:f"])
def test_a_file_is_no_module(name: str) -> None:
    assert "names a file; name its module instead" in refused(name)


def test_no_such_module(write: Writer) -> None:
    write("")
    assert refused("mine_omn:f") == (
        f"{KEY}: there is no module mine_omn in {Path.cwd()} or among the installed packages (did you mean mine_own?)"
    )
    assert refused("mine_own.part:f") == f"{KEY}: there is no module mine_own.part in mine_own"
    assert refused("torch.nn.functionel:relu") == (
        f"{KEY}: there is no module torch.nn.functionel in torch.nn (did you mean torch.nn.functional?)"
    )


def test_a_module_that_lacks_another(write: Writer) -> None:
    write("x = 1\nimport mine_absent\n")
    assert refused("mine_own:f") == (
        f"{KEY}: mine_own fails to import: {Path.cwd() / 'mine_own.py'}:2: "
        "ModuleNotFoundError: No module named 'mine_absent'"
    )


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("def f(:\n    pass\n", 1, "SyntaxError: invalid syntax"),
        ("x = 1\nx.y\n", 2, "AttributeError: 'int' object has no attribute 'y'"),
        ("def g():\n    raise ValueError('one\\ntwo')\ng()\n", 2, "ValueError: one"),
        ("assert False\n", 1, "AssertionError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError: Expecting property name enclosed in double quotes"),
    ],
)
def test_a_module_that_fails(write: Writer, text: str, line: int, reason: str) -> None:
    write(text)
    wanted = f"{KEY}: mine_own fails to import: {Path.cwd() / 'mine_own.py'}:{line}: {reason}"
    assert refused("mine_own:f").startswith(wanted)


def test_no_such_function(write: Writer) -> None:
    write("import math\ndef focal(x):\n    return x\nfocus = 3\n")
    file = Path.cwd() / "mine_own.py"
    assert refused("mine_own:focel") == f"{KEY}: {file} has no focel (did you mean mine_own:focal?)"
    assert refused("mine_own:unlike") == f"{KEY}: {file} has no unlike"


def test_what_cannot_be_called(write: Writer) -> None:
    write("rate = 0.5\n")
    assert refused("mine_own:rate") == f"{KEY}: mine_own:rate is of type float; name a function"
    assert refused("torch.nn.functional") == f"{KEY}: torch.nn.functional is of type module; name a function"


def test_an_error_inside_names_the_users_line(write: Writer) -> None:
    write("import torch\ndef f(x):\n    return g(x)\ndef g(x):\n    return x @ torch.ones(7)\n")
    function = load("mine_own:f", KEY, own=True)
    with pytest.raises(UserError) as caught:
        function(torch.ones(3))
    message = str(caught.value)
    assert message.startswith(f"{KEY}: mine_own:f: {Path.cwd() / 'mine_own.py'}:5: RuntimeError: ")
    assert "\n" not in message


def test_a_wrong_number_of_arguments() -> None:
    function = UserFunction(KEY, "mine_own:f", lambda x: x)
    with pytest.raises(
        UserError, match=r"^loss\.function: mine_own:f: TypeError: .* takes 1 positional argument but 2"
    ):
        function(1, 2)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), UserError("said well already"), KeyboardInterrupt()])
def test_what_others_answer_passes(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        UserFunction(KEY, "mine_own:f", fail)()
    assert caught.value is error


def test_the_title_of_a_plain_function() -> None:
    assert title(refused) == "refused"


def test_importing_it_is_light() -> None:
    code = "import sys, shared_core.userdefined; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
