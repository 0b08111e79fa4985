"""The command line of a package: flags, help, verbs, and one line for each mistake."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core import cli, flags, yamlfile
from shared_core import config as configuration
from shared_core.cli import App, Verb
from shared_core.errors import UserError
from shared_core.schema import leaves

PACKAGE = {
    "__init__.py": "",
    "__main__.py": "from toy_package.config import APP\n\nraise SystemExit(APP.main())\n",
    "config.py": '''
from pathlib import Path
from typing import Literal

from pydantic import Field

from shared_core.cli import App, Verb
from shared_core.keymap import Key
from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section


class Data(Section):
    """Where the numbers come from."""

    source: Literal["digits", "mnist"] = "digits"
    num_workers: int = Field(0, ge=0, description="loader processes")


class Model(Section):
    """The network."""

    layers: tuple[int, ...] = Field((2, 2, 2), description="blocks per stage")
    width: float = Field(1.0, gt=0, description="multiplier of all widths")
    fusion: bool = False
    title: str = "plain"
    tags: list[str] = []
    weights: dict[str, float] = {}
    mixed: int | str = 1


class Config(RunConfig):
    data: Data = Data()
    model: Model = Model()


class PrepareOptions(Section):
    """What to prepare."""

    sample: bool = Field(False, description="the embedded sample")
    data: Path | None = Field(None, description="folder of raw data")
    limit: int | None = Field(None, ge=1, description="at most so many")


class ListOptions(Section):
    names: tuple[str, ...] = Field((), description="what to list", json_schema_extra={"positional": True})
    long: bool = False


CALLS = []
KEYS = {"learning_rate": "optimizer.lr", "use_flash": Key(None)}


def record(app, config, options):
    CALLS.append((config, options))


def fail(app, config, options):
    from shared_core.errors import UserError

    raise UserError("data/x.npz: truncated; download it again")


def interrupt(app, config, options):
    raise KeyboardInterrupt


def three(app, config, options):
    return 3


APP = App(
    command="toy",
    package="toy-package",
    module="toy_package",
    about="Learns nothing, quickly.",
    config="toy_package.config:Config",
    task="toy_package.nowhere:build_task",
    headline="accuracy",
    verbs=(
        Verb("prepare", "toy_package.config:record", "raw data to prepared data", "toy_package.config:PrepareOptions"),
        Verb("list", "toy_package.config:record", "list things", "toy_package.config:ListOptions"),
        Verb("predict", "toy_package.config:record", "predictions", "shared_core.runs:RunOptions"),
        Verb("fail", "toy_package.config:fail", "fails"),
        Verb("interrupt", "toy_package.config:interrupt", "is interrupted"),
        Verb("three", "toy_package.config:three", "returns 3"),
        Verb("plan", "toy_package.config:record", "a plan of its own"),
    ),
    aliases={"layers": "model.layers", "use-fusion": "model.fusion", "wide": "model.width=2.0|1.0"},
    key_map="toy_package.config:KEYS",
)
''',
    "configs/default.yaml": "training:\n  epochs: 7\n",
    "configs/fast.yaml": "training:\n  epochs: 2\n  batch_size: 16\noptimizer:\n  lr: 1e-2\n",
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    for name, text in PACKAGE.items():
        file = root / "toy_package" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def toy(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The toy package's module; the working directory is an empty one."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("toy_package.config")
    module.CALLS.clear()
    return module


@pytest.fixture
def run(toy: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line that must succeed; returns (config, options) that the verb's function got."""

    def run(*argv: str) -> Any:
        status = toy.APP.main(list(argv))
        assert status == 0, capsys.readouterr().err
        return toy.CALLS[-1]

    return run


@pytest.fixture
def mistakes(toy: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line that must fail as the user's mistake; returns the lines on stderr."""

    def mistakes(*argv: str) -> list[str]:
        assert toy.APP.main(list(argv)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert toy.CALLS == []
        lines = captured.err.splitlines()
        assert all(line.startswith("error: ") for line in lines)
        return [line.removeprefix("error: ") for line in lines]

    return mistakes


# ---- flags that work


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        (["--training.epochs", "3"], "training.epochs", 3),
        (["--training.epochs=3"], "training.epochs", 3),
        (["--epochs", "3"], "training.epochs", 3),
        (["--epochs", "3", "--training.epochs=4"], "training.epochs", 4),
        (["--batch-size", "3"], "training.batch_size", 3),
        (["--batch_size", "3"], "training.batch_size", 3),
        (["--training.batch-size", "3"], "training.batch_size", 3),
        (["--lr", "1e-3"], "optimizer.lr", 1e-3),
        (["--learning_rate", "3e-4"], "optimizer.lr", 3e-4),
        (["--weight-decay", "0"], "optimizer.weight_decay", 0.0),
        (["--patience", "null"], "training.patience", None),
        (["--patience", "4"], "training.patience", 4),
        (["--seed", "42"], "seed", 42),
        (["--name", "x-1"], "name", "x-1"),
        (["--resume", "never"], "training.resume", "never"),
        (["--num-workers", "4"], "data.num_workers", 4),
        (["--output-dir", "/out put"], "paths.runs", Path("/out put")),
        (["--gradient_accumulation_steps", "2"], "training.accumulation", 2),
        (["--use-amp"], "runtime.precision", "auto"),
        (["--use_amp", "false"], "runtime.precision", "fp32"),
        (["--no-use-amp"], "runtime.precision", "fp32"),
        (["--tracker", "none"], "logging.tracker", "none"),
        (["--profile"], "logging.profile", True),
        (["--layers", "3,3,3"], "model.layers", (3, 3, 3)),
        (["--layers", "[3, 3, 3]"], "model.layers", (3, 3, 3)),
        (["--layers", "3", "3", "3"], "model.layers", (3, 3, 3)),
        (["--layers", "3"], "model.layers", (3,)),
        (["--layers", "[]"], "model.layers", ()),
        (["--use-fusion"], "model.fusion", True),
        (["--model.fusion", "true"], "model.fusion", True),
        (["--model.fusion=false"], "model.fusion", False),
        (["--no-model.fusion"], "model.fusion", False),
        (["--model.fusion", "--seed", "1"], "model.fusion", True),
        (["--wide"], "model.width", 2.0),
        (["--model.tags", "a,b c"], "model.tags", ["a", "b c"]),
        (["--model.tags", "1,2"], "model.tags", ["1", "2"]),
        (["--model.weights", '{"a": 1}'], "model.weights", {"a": 1.0}),
        (["--model.mixed", "word"], "model.mixed", "word"),
        (["--optimizer.betas", "0.8,0.9"], "optimizer.betas", (0.8, 0.9)),
        (["--model.title", "-dash"], "model.title", "-dash"),
        (["--model.title=--dash"], "model.title", "--dash"),
        (["--training.ema-decay", "null"], "training.ema_decay", None),
    ],
)
def test_flags(run: Any, argv: list[str], key: str, value: Any) -> None:
    found, _ = run("plan", *argv)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_flags_override_the_preset_and_leave_the_rest(run: Any) -> None:
    config, _ = run("plan", "--config", "fast", "--epochs", "9")
    assert (config.training.epochs, config.training.batch_size, config.optimizer.lr) == (9, 16, 0.01)
    assert config.name == "fast"


def test_the_default_preset_is_used_unasked(run: Any) -> None:
    config, options = run("plan")
    assert (config.training.epochs, config.name, options) == (7, "default", None)


def test_a_file_is_a_configuration(run: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("training: {epochs: 5}\n")
    assert run("plan", "-c", "mine.yaml")[0].training.epochs == 5


def test_options_of_a_verb_have_no_prefix_and_may_be_named_like_a_section(run: Any) -> None:
    config, options = run("prepare", "--sample", "--data", "raw", "--limit", "5", "--data.source", "mnist")
    assert (options.sample, options.data, options.limit, config.data.source) == (True, Path("raw"), 5, "mnist")
    assert run("prepare")[1].sample is False


def test_bare_words_go_to_the_positional_option(run: Any) -> None:
    _, options = run("list", "a", "--long", "b", "--seed", "3", "c")
    assert (options.names, options.long) == (("a", "b", "c"), True)
    assert run("list", "--names", "x")[1].names == ("x",)
    assert run("list")[1].names == ()


def test_translated_keys_are_announced_on_stderr(run: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("learning_rate: 1e-2\nuse_flash: true\n")
    assert run("plan", "--config", "old.yaml")[0].optimizer.lr == 0.01
    assert capsys.readouterr().err.splitlines() == [
        "old.yaml:1: learning_rate -> optimizer.lr: 0.01",
        "old.yaml:2: use_flash: ignored",
    ]


def test_the_environment_changes_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = run("plan", "--lr", "0.5")
    for name in ("seed", "training.epochs", "training__epochs", "training", "name", "model.layers"):
        monkeypatch.setenv(name, "3")
        monkeypatch.setenv(name.upper(), "3")
    assert run("plan", "--lr", "0.5")[0] == before


def test_threads_wait_a_short_while_awake_unless_told_otherwise(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    toy.APP.main(["--version"])
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    toy.APP.main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    toy.APP.main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == str(cli.SPIN)


def test_exit_statuses(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.APP.main(["three"]) == 3
    assert toy.APP.main(["fail"]) == 2
    assert capsys.readouterr().err == "error: data/x.npz: truncated; download it again\n"
    assert toy.APP.main(["interrupt"]) == 130
    assert toy.APP.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("toy ")


def test_a_verb_of_the_package_replaces_the_standard_one(toy: Any, run: Any) -> None:
    assert toy.APP.all_verbs()["plan"].help == "a plan of its own"
    assert run("plan")
    names = list(toy.APP.all_verbs())
    assert (
        names.index("prepare")
        < names.index("plan")
        < names.index("train")
        < names.index("predict")
        < names.index("list")
    )


def test_verbs_can_be_called_from_code(toy: Any) -> None:
    config = toy.APP.load("fast", {"seed": 5})
    assert toy.APP.call("prepare", config, sample=True) == 0
    assert toy.APP.call("three", config) == 3
    (call,) = toy.CALLS
    assert call == (config, toy.PrepareOptions(sample=True))


# ---- mistakes


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["tran"], "tran: no such verb (did you mean train?); there are prepare, plan, train,"),
        (["--config", "fast"], "--config: the verb comes first, as in `toy train --config ...`"),
        (["plan", "--config", "fats"], "--config: no preset 'fats' (did you mean fast?); there are default, fast;"),
        (["plan", "--config"], "--config: needs the name of a preset or a .yaml file"),
        (["plan", "--config", "no/such.yaml"], "no/such.yaml: no such file"),
        (["plan", "--epoch", "3"], "--epoch: no such flag (did you mean --epochs?)"),
        (["plan", "--training.epoch=3"], "--training.epoch: no such flag (did you mean --training.epochs?)"),
        (["plan", "--width", "3"], "--width: no such flag (did you mean --model.width?)"),
        (
            ["plan", "--traning.batch-size", "3"],
            "--traning.batch-size: no such flag (did you mean --training.batch-size?)",
        ),
        (["plan", "--zzzzz"], "--zzzzz: no such flag"),
        (["plan", "--print_confg"], "--print_confg: no such flag (did you mean --print-config?)"),
        (["plan", "--training", "3"], "--training: is a section; set one of its fields (--training.epochs, "),
        (["plan", "--epochs"], "--epochs: needs a value (int|null)"),
        (["plan", "--epochs", "--lr", "1"], "--epochs: needs a value (int|null)"),
        (["plan", "--epochs", "many"], "--epochs: must be a whole number (or null), not 'many'"),
        (["plan", "--epochs", "null"], "--epochs: null needs steps, or training never ends"),
        (["plan", "--batch-size", "null"], "--batch-size: must be a whole number, not null"),
        (["plan", "--batch_size", "0"], "--batch_size: must be greater than or equal to 1, not '0'"),
        (["plan", "--device", "gpu"], "--device: must be auto, cpu, cuda or mps, not 'gpu' (did you mean cpu?)"),
        (["plan", "--layers", "2,x"], "--layers: must be a whole number, not 'x'"),
        (["plan", "--layers", "[2"], "--layers: cannot read '[2' as int,..."),
        (["plan", "--model.weights", "a"], "--model.weights: cannot read 'a' as JSON"),
        (["plan", "--model.fusion", "true", "maybe"], "maybe: unexpected argument"),
        (["plan", "--model.fusion=maybe"], "--model.fusion: must be true or false, not 'maybe'"),
        (["plan", "--use-amp=maybe"], "--use-amp: takes true or false, not 'maybe'"),
        (["plan", "--no-use-amp=false"], "--no-use-amp: takes no value, not 'false'"),
        (["plan", "--no-epochs"], "--no-epochs: no such flag (did you mean --epochs?)"),
        (["plan", "epochs"], "epochs: unexpected argument (did you mean --epochs?)"),
        (["plan", "-e", "3"], "-e: unexpected argument"),
        (["plan", "--sample"], "--sample: no such flag"),
        (["prepare", "--limit", "0"], "--limit: must be greater than or equal to 1 (or null), not '0'"),
        (["prepare", "--limt", "0"], "--limt: no such flag (did you mean --limit?)"),
        (["pull"], "--repo: is required (OWNER/NAME on the Hub"),
        (["push", "a/b", "c"], "c: unexpected argument"),
        (["push", "a/b", "--private", "--tag"], "--tag: needs a value (text|null)"),
        (["list", "[a"], "NAMES: cannot read '[a' as text,..."),
        (["list", "-x"], "-x: unexpected argument"),
        (["plan", "--lr", "inf"], "--lr: must be a finite number, not inf"),
        (["plan", "--lr", "nan"], "--lr: must be "),
    ],
)
def test_each_mistake_is_one_line(mistakes: Any, argv: list[str], line: str) -> None:
    (found,) = mistakes(*argv)
    assert found.startswith(line)


def test_all_mistakes_are_said_at_once(mistakes: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("training:\n  epohcs: 3\n  batch_size: none\n")
    argv = ["--config", "bad.yaml", "--lr", "fast", "--sampel", "--limit", "x", "--layers", "[1", "--name", "a/b"]
    found = mistakes("prepare", *argv)
    places = ["--sampel", "--layers", "--limit", "bad.yaml:3: training.batch_size", "bad.yaml:2: training.epohcs"]
    assert sorted(line.rsplit(":", 1)[0] if line.startswith("bad") else line.split(":")[0] for line in found) == sorted(
        [*places, "--lr", "--name"]
    )


def test_a_bad_flag_and_a_bad_preset_are_both_said(mistakes: Any) -> None:
    assert [line.split(":")[0] for line in mistakes("plan", "--config", "fats", "--epoch", "3")] == [
        "--epoch",
        "--config",
    ]


def test_no_verb_shows_the_overview(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.APP.main([]) == 2
    assert "verbs:" in capsys.readouterr().err


def test_aliases_must_mean_something(toy: Any) -> None:
    with pytest.raises(ValueError, match=r"--wide means 'model\.wdith'"):
        flags.Flags(toy.Config, None, {"wide": "model.wdith"})
    with pytest.raises(ValueError, match="'name' of the verb hides"):
        flags.Flags(toy.Config, toy.Config)


words = st.sampled_from(
    [
        *(
            "plan",
            "prepare",
            "fast",
            "3",
            "null",
            "a=1",
            "é",
            ",",
            "[",
            "]",
            "{",
            '"',
            "\\",
            "",
            "-",
            "--",
            "---",
            "--=",
        ),
        *("--help", "--config", "--epochs", "--lr=1", "--model.tags", "--model.weights", "--model.title"),
        *("--no-", "--no-use-amp"),
    ]
)


@settings(deadline=None, max_examples=200)
@given(argv=st.lists(words | st.text(max_size=5), max_size=6))
def test_any_command_line_ends_in_an_exit_status(folder: Path, argv: list[str]) -> None:
    sys.path.insert(0, str(folder))
    try:
        app = importlib.import_module("toy_package.config").APP
    finally:
        sys.path.remove(str(folder))
    assert app.main(argv) in (0, 2, 3, 130)


@settings(deadline=None)
@given(
    text=st.text(), number=st.floats(allow_nan=False, allow_infinity=False), sizes=st.lists(st.integers(), max_size=4)
)
def test_values_arrive_as_typed(folder: Path, text: str, number: float, sizes: list[int]) -> None:
    sys.path.insert(0, str(folder))
    try:
        toy = importlib.import_module("toy_package.config")
    finally:
        sys.path.remove(str(folder))
    argv = [
        f"--model.title={text}",
        f"--model.width={abs(number) + 1!r}",
        f"--layers={','.join(map(str, sizes)) or '[]'}",
    ]
    split = flags.Flags(toy.Config, None, {"layers": "model.layers"}).split(argv)
    values, problems = flags.decode(toy.Config, split.config)
    config, wrong = configuration.validate(toy.Config, yamlfile.Document({}), values, split.config.spelled)
    if text == "null":
        assert wrong == ["--model.title: must be text, not null"]
        return
    assert split.problems == problems == wrong == []
    assert (config.model.title, config.model.width, config.model.layers) == (text, abs(number) + 1, tuple(sizes))


# ---- what is printed


def test_print_config_can_be_loaded_again(toy: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["--config", "fast", "--layers", "3,3", "--model.title", "on", "--lr", "1e-3", "--patience", "4"]
    assert toy.APP.main(["train", *argv, "--print-config"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    again = toy.APP.load("printed.yaml")
    assert again.model.layers == (3, 3)
    assert again == toy.APP.load(
        "fast", {"model.layers": (3, 3), "model.title": "on", "optimizer.lr": 1e-3}
    ).model_copy(update={"training": again.training})
    assert (again.training.epochs, again.training.patience, again.name) == (2, 4, "fast")


def test_overview_lists_every_verb_and_preset(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.APP.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in toy.APP.all_verbs().values():
        assert verb.name in text
        assert " ".join(verb.help.split()[:3]) in text
    assert "presets: default, fast" in text


def test_help_lists_every_field_with_its_description_and_default(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.APP.main(["prepare", "--config", "fast", "--help"]) == 0
    text = capsys.readouterr().out
    flat = " ".join(text.split())
    for leaf in [*leaves(toy.Config).values(), *leaves(toy.PrepareOptions).values()]:
        assert f"--{leaf.key}" in text
        assert leaf.description in flat
    assert (
        "--training.epochs, --epochs int|null passes over the training data; null: as many as `steps` take [2]" in flat
    )  # the preset's default
    assert "--model.layers, --layers int,... blocks per stage [2,2,2]" in flat
    assert "--data path|null folder of raw data [null]" in flat
    assert "model: The network" in flat
    assert max(map(len, text.splitlines())) <= 120


def test_help_of_every_verb_works(toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name in toy.APP.all_verbs():
        assert toy.APP.main([name, "--help"]) == 0
        assert f"usage: toy {name}" in capsys.readouterr().out


HEAVY = ("torch", "accelerate", "matplotlib", "sklearn", "huggingface_hub", "scipy", "optuna")


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["demo", "--help"], ["train", "--print-config"]])
def test_help_and_print_config_import_nothing_heavy(folder: Path, argv: list[str]) -> None:
    code = (
        "import sys; from toy_package.config import APP\n"
        f"status = APP.main({argv!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "raise SystemExit(status)"
    )
    path = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "train" in done.stdout


def test_a_closed_pipe_is_no_error(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m toy_package train --help | head -n 1"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_module_and_function_are_the_same_program(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "toy_package", "plan", "--epohcs", "3"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "error: --epohcs: no such flag (did you mean --epochs?)\n"


def test_an_app_without_presets_works(toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bare_package").mkdir()
    (tmp_path / "bare_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    verbs = (Verb("go", "toy_package.config:record", "goes"),)
    app = App("bare", "bare", "bare_package", "Bare.", "toy_package.config:Config", "nowhere:nothing", "loss", verbs)
    assert app.main(["go", "--epochs", "2"]) == 0
    assert toy.CALLS[-1][0].training.epochs == 2
    assert app.main(["go", "--help"]) == 0
    with pytest.raises(UserError, match="no preset 'fast'; there are none"):
        app.load("fast")
