"""Presets, files and flags become one configuration, or one list of everything that is wrong with them."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator

from shared_core import config, yamlfile
from shared_core.errors import UserError
from shared_core.keymap import Key
from shared_core.settings import RunConfig, Section, Training, resumable


class Cnn(Section):
    kind: Literal["cnn"] = "cnn"
    width: float = Field(1.0, gt=0)


class Mlp(Section):
    kind: Literal["mlp"] = "mlp"
    sizes: tuple[int, ...] = (64, 64)


class Mix(Section):
    alpha: float = 0.2


class Data(Section):
    source: Literal["digits", "mnist"] = "digits"
    folder: Path | None = None
    classes: dict[str, float] = Field({})
    shares: tuple[float, float] = (0.8, 0.2)
    label: str = "y"
    limit: int | Literal["all"] = "all"
    mix: Mix | None = None
    num_workers: int = resumable(0, ge=0)

    @field_validator("label")
    @classmethod
    def _no_spaces(cls, label: str) -> str:
        if " " in label:
            raise ValueError("may not contain spaces")
        return label

    @model_validator(mode="after")
    def _shares_add_up(self) -> "Data":
        if abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError("shares must add up to 1")
        return self


class Config(RunConfig):
    data: Data = Data()
    model: Annotated[Cnn | Mlp, Field(discriminator="kind")] = Cnn()
    training: Training = Training(epochs=4)


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "quick-run.yaml").write_text("training:\n  epochs: 2\n  batch_size: 1e2\ndata: {source: mnist}\n")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        file = tmp_path / "my.yaml"
        file.write_text(text)
        return file

    return write


def load(source: Any, presets: Path, **overrides: Any) -> Config:
    return config.load(Config, source, presets, {key.replace("__", "."): value for key, value in overrides.items()})


def complaints(source: Path, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(UserError) as error:
        config.load(Config, source, source.parent, overrides)
    return [line.removeprefix(f"{source}:") for line in str(error.value).splitlines()]


def test_preset_by_name_dash_or_underscore(presets: Path) -> None:
    for name in ("quick-run", "quick_run", str(presets / "quick-run.yaml")):
        found = load(name, presets)
        assert (found.training.epochs, found.training.batch_size, found.data.source) == (2, 100, "mnist")
        assert found.name == "quick-run"


def test_defaults_file_and_overrides_merge_deeply(presets: Path) -> None:
    found = load("quick-run", presets, training__epochs=9, data__shares=[0.5, 0.5])
    assert (found.training.epochs, found.training.batch_size) == (9, 100)
    assert (found.data.source, found.data.shares) == ("mnist", (0.5, 0.5))
    assert load(None, presets).training.epochs == 4
    assert load(None, presets).name is None


def test_nested_overrides_are_the_same_as_dotted_ones(presets: Path) -> None:
    nested = config.load(Config, "quick-run", presets, {"training": {"epochs": 9}, "data": {"mix": {"alpha": 1}}})
    assert nested == load("quick-run", presets, training__epochs=9, data__mix__alpha=1)


def test_an_override_opens_an_optional_section(presets: Path, write: Any) -> None:
    assert load(write("data: {mix: null}"), presets, data__mix__alpha=0.5).data.mix == Mix(alpha=0.5)


def test_loading_changes_nothing_it_was_given(presets: Path) -> None:
    overrides = {"data": {"classes": {"a": 1.0}}}
    config.load(Config, "quick-run", presets, overrides)
    assert overrides == {"data": {"classes": {"a": 1.0}}}


def test_a_mapping_that_is_a_setting_is_replaced_as_a_whole(presets: Path, write: Any) -> None:
    file = write("data: {classes: {a: 1, b: 2}, label: z}")
    assert load(file, presets, data__classes={"c.d": 3}).data.classes == {"c.d": 3}
    nested = config.load(Config, file, presets, {"data": {"classes": {"c.d": 3}}})
    assert (nested.data.classes, nested.data.label) == ({"c.d": 3}, "z")


def test_home_is_expanded_in_paths_only(presets: Path, write: Any) -> None:
    found = load(write("paths: {data: ~/data}\ndata: {folder: '~', label: '~/x'}"), presets, paths__runs="~/runs")
    assert (found.paths.data, found.paths.runs, found.data.folder) == (
        Path.home() / "data",
        Path.home() / "runs",
        Path.home(),
    )
    assert found.data.label == "~/x"


def test_every_wrong_item_of_a_flag_has_its_line(presets: Path) -> None:
    with pytest.raises(UserError) as error:
        load(None, presets, model__kind="mlp", model__sizes=["a", 1, "b"])
    assert str(error.value).splitlines() == [
        "--model.sizes: must be a whole number, not 'a'",
        "--model.sizes: must be a whole number, not 'b'",
    ]


class Ruled(Config):
    """With a rule about the whole, and a list that may not be empty."""

    seeds: tuple[int, ...] = Field((1,), min_length=1)

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Ruled":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: names one twice")
        return self


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"data.shares": [0.5, 0.6]}, "--data.shares: shares must add up to 1"),
        ({"data.shares": [0.5, 0.6], "data.limit": 3}, "--data.shares: shares must add up to 1"),
        ({"seeds": [4, 4]}, "--seeds: names one twice"),
        ({"seeds": ["x"]}, "--seeds: must be a whole number, not 'x'"),
        ({"seeds": []}, "--seeds: must have at least 1 value, not []"),
        ({"optimizer.betas": [0.9]}, "--optimizer.betas: must be float,float; value 2 is missing"),
    ],
)
def test_a_broken_rule_is_the_fault_of_the_flag(write: Any, presets: Path, overrides: Any, said: str) -> None:
    """And not of the line of the file in which its section stands."""
    file = write("data: {source: digits}\noptimizer: {lr: 0.1}\nseeds: [1, 2]\n")
    with pytest.raises(UserError) as error:
        config.load(Ruled, file, presets, overrides)
    assert str(error.value).splitlines() == [said]


def test_a_broken_rule_of_a_file_has_its_line(write: Any, presets: Path) -> None:
    file = write("optimizer: {lr: 0.1}\nseeds: [1, 1]\ndata: {shares: [1, 1]}\n")
    with pytest.raises(UserError) as error:
        config.load(Ruled, file, presets, {"data.limit": "all", "optimizer.lr": 0.2})
    assert str(error.value).endswith(":3: data: shares must add up to 1")  # and not of another flag in its section
    with pytest.raises(UserError, match=r":2: seeds: names one twice$"):
        config.load(Ruled, write("optimizer: {lr: 0.1}\nseeds: [1, 1]\n"), presets)


def test_an_unknown_preset_names_the_near_one(presets: Path) -> None:
    with pytest.raises(UserError, match=r"no preset 'quick-rum' \(did you mean quick-run\?\); there are quick-run"):
        load("quick-rum", presets)
    with pytest.raises(UserError, match=r"elsewhere\.yaml: no such file"):
        load("elsewhere.yaml", presets)


def test_a_section_with_every_key_commented_out_is_empty(write: Any, presets: Path) -> None:
    assert load(write("training:\n  # epochs: 3\ndata:\n"), presets).training == Training(epochs=4)


def test_a_part_of_a_section_leaves_the_packages_defaults_for_the_rest(write: Any, presets: Path) -> None:
    from_file = load(write("training: {batch_size: 8}\nmodel: {width: 2}"), presets)
    from_flags = load(None, presets, training__batch_size=8, model__width=2, name="my")
    assert from_file == from_flags == Config(name="my", training=Training(epochs=4, batch_size=8), model=Cnn(width=2))
    assert load(write("model: {kind: mlp}"), presets).model == Mlp()


def test_everything_wrong_is_said_at_once(write: Any) -> None:
    file = write(
        "trainig:\n  epochs: 3\n"
        "training:\n  epohcs: 3\n  batch_size: 0\n  patience: never\n"
        "optimizer: {lr: fast, name: adam}\n"
        "scheduler: cosine\n"
        "data:\n  label: a b\n  classes: {cat: heavy}\n  shares: [0.5]\n"
        "lr: 0.1\n"
    )
    assert sorted(complaints(file, {"seed": -1, "runtime.device": "gpu"})) == sorted(
        [
            "1: trainig: no such setting (did you mean training?)",
            "4: training.epohcs: no such setting (did you mean training.epochs?)",
            "5: training.batch_size: must be greater than or equal to 1, not 0",
            "6: training.patience: must be a whole number (or null), not 'never'",
            "7: optimizer.lr: must be a number, not 'fast'",
            "7: optimizer.name: must be adamw or muon, not 'adam' (did you mean adamw?)",
            "8: scheduler: is a section with its own keys (name, warmup_steps, min_lr, factor, patience), not 'cosine'",
            "10: data.label: may not contain spaces",
            "11: data.classes.cat: must be a number, not 'heavy'",
            "12: data.shares.1: must be float,float; value 2 is missing",
            "13: lr: no such setting (did you mean optimizer.lr?)",
            "--seed: must be greater than or equal to 0, not -1",
            "--runtime.device: must be auto, cpu, cuda or mps, not 'gpu' (did you mean cpu?)",
        ]
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("data: {shares: [0.5, 0.4]}", "1: data: shares must add up to 1"),
        ("data:\n  limit: some", "2: data.limit: must be a whole number, not 'some'; or must be all, not 'some'"),
        ("model: {kind: rnn}", "1: model.kind: must be cnn or mlp, not 'rnn'"),
        ("model: {kind: mlp, width: 2}", "1: model.width: no such setting"),
        ("model:\n  kind: mlp\n  sizes: [1, x]", "3: model.sizes.1: must be a whole number, not 'x'"),
        ("training: {epochs: true}", "1: training.epochs: must be a number, not true"),
        ("training: {epochs: 2.5}", "1: training.epochs: must be a whole number (or null), not 2.5"),
        ("optimizer: {lr: .inf}", "1: optimizer.lr: must be a finite number, not inf"),
        ("optimizer: {betas: [0.9, .nan]}", "1: optimizer.betas.1: must be a finite number, not nan"),
        ("data: {classes: {a: yes}}", "1: data.classes.a: must be a number, not 'yes'"),
        ("data: {num_workers: 1e9999}", "1: data.num_workers: "),
        ("name: a/b", "1: name: "),
        ("name: 3", "1: name: must be text (or null), not 3"),
        ("data: []", "1: data: is a section with its own keys (source, folder, "),
        ("data: {mix: {beta: 1}}", "1: data.mix.beta: no such setting"),
        ("data: {mix: 3}", "1: data.mix: is a section with its own keys (alpha), not 3"),
    ],
)
def test_each_kind_of_mistake(write: Any, text: str, complaint: str) -> None:
    (line,) = complaints(write(text))
    assert line.startswith(complaint)


def test_words_and_numbers_of_yaml_reach_fields_as_meant(write: Any, presets: Path) -> None:
    found = load(
        write("optimizer: {lr: 1e-3, eps: 3e+4}\ndata: {label: on, folder: 017, limit: 017}\nruntime: {compile: on}"),
        presets,
    )
    assert (found.optimizer.lr, found.optimizer.eps) == (1e-3, 3e4)
    assert (found.data.label, found.data.folder, found.data.limit) == ("on", Path("017"), 17)
    assert found.runtime.compile is True
    assert load(write("data: {label: 12:30:00}"), presets).data.label == "12:30:00"
    assert load(write("data: {label: 2024-01-01}"), presets).data.label == "2024-01-01"
    assert load(write("logging: {tracker: none}"), presets).logging.tracker == "none"


def test_a_file_name_becomes_a_run_name(tmp_path: Path, presets: Path) -> None:
    (tmp_path / "my run (2).yaml").write_text("seed: 1\n")
    assert load(tmp_path / "my run (2).yaml", presets).name == "my-run-2"
    assert load(tmp_path / "my run (2).yaml", presets, name="x").name == "x"


configs = st.builds(
    Config,
    name=st.none() | st.from_regex(r"[A-Za-z0-9_äß中][A-Za-z0-9_.\-äß中]*", fullmatch=True),
    seed=st.integers(0, 2**32 - 1),
    data=st.builds(
        Data,
        source=st.sampled_from(["digits", "mnist"]),
        folder=st.none() | st.text().filter(lambda text: not text.startswith("~")).map(Path),
        classes=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        label=st.text().filter(lambda text: " " not in text),
        limit=st.integers() | st.just("all"),
        mix=st.none() | st.builds(Mix, alpha=st.floats(allow_nan=False, allow_infinity=False)),
    ),
    model=st.builds(Cnn, width=st.floats(min_value=1e-300, max_value=1e300))
    | st.builds(Mlp, sizes=st.lists(st.integers(), max_size=4).map(tuple)),
    training=st.builds(Training, epochs=st.integers(1), patience=st.none() | st.integers(1)),
)


@settings(deadline=None)
@given(configs)
def test_what_is_printed_loads_as_the_same_configuration(original: Config) -> None:
    document = yamlfile.parse(config.to_yaml(original), Path("printed.yaml"))
    again, problems = config.validate(Config, document, {} if original.name else {"name": None})
    assert problems == []
    expected = original if original.name else original.model_copy(update={"name": "printed"})
    assert again == expected
    assert config.digest(again) == config.digest(original)
    assert config.differences(config.to_dict(original), again) == []


def test_digest_ignores_what_may_change_on_resume() -> None:
    base = Config()
    same = [
        base.model_copy(update={"name": "other"}),
        base.model_copy(update={"training": base.training.model_copy(update={"epochs": 99, "resume": "never"})}),
        base.model_copy(update={"data": base.data.model_copy(update={"num_workers": 7})}),
        base.model_copy(update={"paths": base.paths.model_copy(update={"runs": Path("/elsewhere")})}),
    ]
    other = [
        base.model_copy(update={"seed": 1}),
        base.model_copy(update={"optimizer": base.optimizer.model_copy(update={"lr": 0.1})}),
        base.model_copy(update={"model": Mlp()}),
        base.model_copy(update={"data": base.data.model_copy(update={"classes": {"a": 1.0}})}),
    ]
    assert {config.digest(c) for c in same} == {config.digest(base)}
    assert len({config.digest(c) for c in [base, *other]}) == 5
    assert all(config.differences(base, c) == [] for c in same)
    assert all(config.differences(base, c) for c in other)


def test_differences_name_key_and_both_values(write: Any, presets: Path) -> None:
    old = load(write("optimizer: {lr: 1e-3}\ntraining: {epochs: 3}"), presets)
    new = load(write("optimizer: {lr: 1e-2, betas: [0.9, 0.99]}\ntraining: {epochs: 5}\nmodel: {kind: mlp}"), presets)
    assert config.differences(old, new) == [
        "optimizer.lr: 0.001 -> 0.01",
        "optimizer.betas: [0.9, 0.999] -> [0.9, 0.99]",
        'model.kind: "cnn" -> "mlp"',
        "model.sizes: (not there) -> [64, 64]",
        "model.width: 1.0 -> (not there)",
    ]
    assert config.differences(config.to_dict(old), new) == config.differences(old, new)


KEYS = {
    "num_epochs": "training.epochs",
    "learning_rate": "optimizer.lr",
    "optimizer": Key("optimizer.name", str.lower),
    "training.use_amp": Key("runtime.precision", lambda on: "auto" if on else "fp32"),
    "model.use_flash_attn": Key(None, note="attention picks its own kernel"),
}


def translated(file: Path) -> tuple[Config, list[str]]:
    notices: list[str] = []
    return config.load(Config, file, file.parent, {}, KEYS, notices.append), notices


def test_a_predecessors_file_loads_with_a_line_for_each_key(write: Any) -> None:
    file = write(
        "num_epochs: 20\nlearning_rate: 3e-4\noptimizer: AdamW\n"
        "training: {use_amp: false, batch_size: 8}\nmodel:\n  use_flash_attn: true\n"
    )
    found, notices = translated(file)
    assert (found.training.epochs, found.training.batch_size, found.optimizer.lr) == (20, 8, 3e-4)
    assert (found.optimizer.name, found.runtime.precision) == ("adamw", "fp32")
    assert notices == [
        f"{file}:1: num_epochs -> training.epochs: 20",
        f"{file}:2: learning_rate -> optimizer.lr: 0.0003",
        f"{file}:3: optimizer -> optimizer.name: adamw",
        f"{file}:4: training.use_amp -> runtime.precision: fp32",
        f"{file}:6: model.use_flash_attn: ignored (attention picks its own kernel)",
    ]


def test_our_own_files_pass_through_a_key_map_unchanged(write: Any) -> None:
    file = write(config.to_yaml(Config(name="x")))
    found, notices = translated(file)
    assert found == Config(name="x")
    assert notices == []


def test_translated_mistakes_keep_the_users_key_and_line(write: Any) -> None:
    file = write("seed: 1\nlearning_rate: -3\n")
    with pytest.raises(UserError) as error:
        translated(file)
    assert str(error.value) == f"{file}:2: learning_rate: must be greater than 0, not -3"


def test_old_and_new_key_together_are_refused(write: Any) -> None:
    file = write("training: {epochs: 3}\nnum_epochs: 5\n")
    with pytest.raises(UserError) as error:
        translated(file)
    assert (
        str(error.value) == f"{file}:2: num_epochs: line 1 sets the same thing (training.epochs); delete one of the two"
    )


def test_an_old_value_without_equivalent_is_refused(write: Any) -> None:
    with pytest.raises(UserError, match=r"my\.yaml:1: optimizer: 3 has no equivalent for optimizer\.name"):
        translated(write("optimizer: 3\n"))


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", ""])
def test_name_of_a_run_is_the_name_of_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        RunConfig(name=name)
    assert RunConfig(name="exp-7.b_c").name == "exp-7.b_c"
