"""The loop: what one step computes, what it skips, and how it fits the device."""

import json
from pathlib import Path

import pytest
import torch
import toy
from PIL import Image
from torch import nn

from shared_core import records, runs, trainer
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.trainer import Outcome


def train(folder: Path, name: str = "run", task_type: type[toy.ToyTask] = toy.ToyTask, **sections: object) -> Outcome:
    """Train the toy in this process; `sections` are dotted settings with `__` for the dot."""
    values: dict = {"training": {"epochs": 2, "batch_size": 16}, "logging": {"tracker": "none", "progress": False}}
    for key, value in sections.items():
        section, _, field = key.partition("__")
        values.setdefault(section, {})[field] = value
    values |= {"name": name, "paths": {"runs": str(folder)}, "runtime": {"device": "cpu", "threads": 1}}
    config = toy.Config.model_validate(values)
    runtime = Runtime.start(config.runtime, config.seed)
    run = runs.open_for_training(toy.APP, config, runtime)
    try:
        return trainer.train(config, task_type(config, runtime), runtime, run)
    finally:
        run.close()


def rows(folder: Path, name: str = "run") -> list[dict]:
    return records.read_metrics(folder / "toy-package" / name)


def newest(folder: Path, name: str = "run") -> dict[str, torch.Tensor]:
    return toy.weights(folder / "toy-package" / name)


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_loss_falls_and_everything_is_recorded(tmp_path: Path) -> None:
    outcome = train(tmp_path, training__epochs=30, optimizer__lr=0.02, training__ema_decay=0.9)
    assert (outcome.state, outcome.step) == ("finished", 30 * 6)
    found = rows(tmp_path)
    losses = [row["val/loss"] for row in found if "val/loss" in row]
    assert len(losses) == 30
    assert losses[-1] < 0.3 * losses[0]
    assert outcome.best["val/loss"] == min(losses)
    logged = [row for row in found if "train/loss" in row]
    assert {"train/lr", "train/grad_norm", "train/samples_per_s", "train/data_wait", "train/error"} <= logged[0].keys()
    log = (tmp_path / "toy-package" / "run" / "train.log").read_text()
    assert f"step 180  elapsed_s {found[-1]['elapsed_s']:.4g}  epoch 30  val/loss {losses[-1]:.4g}" in log


def test_seed_reproduces_a_run_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        config = {"name": name, "seed": seed, "paths": {"runs": str(tmp_path)}, "runtime": {"device": "cpu"}}
        whole = toy.Config.model_validate({**config, "training": {"epochs": 1, "batch_size": 16}})
        runtime = Runtime.start(whole.runtime, whole.seed)
        run = runs.open_for_training(toy.APP, whole, runtime)
        trainer.train(whole, toy.ToyTask(whole, runtime), runtime, run)
        run.close()
    assert_equal(newest(tmp_path, "a"), newest(tmp_path, "b"))
    assert not torch.equal(newest(tmp_path, "a")["0.weight"], newest(tmp_path, "c")["0.weight"])


@pytest.mark.parametrize("eval_every", [1, 2, 5])
def test_evaluation_leaves_the_training_alone(tmp_path: Path, eval_every: int) -> None:
    train(tmp_path, "often", training__epochs=5)
    train(tmp_path, "seldom", training__epochs=5, training__eval_every=eval_every)
    assert_equal(newest(tmp_path, "often"), newest(tmp_path, "seldom"))


@pytest.mark.parametrize(("steps", "cut", "wanted"), [(4, None, [4, 8, 12]), (6, None, [6, 12]), (100, None, [12]),
                                                       (4, 9, [4, 8, 9]), (1, 3, [1, 2, 3])])  # fmt: skip
def test_evaluations_are_counted_in_steps(tmp_path: Path, steps: int, cut: int | None, wanted: list[int]) -> None:
    """Wherever epochs, of 6 steps, end; each with a checkpoint, and training does not notice."""
    counted = {"training__eval_steps": steps, "training__steps": cut, "training__keep_checkpoints": 20}
    train(tmp_path, **counted, training__checkpoint_minutes=None)
    assert [row["step"] for row in rows(tmp_path) if "val/loss" in row] == wanted
    there = {int(path.name.removeprefix("step-")) for path in (tmp_path / "toy-package/run/checkpoints").glob("step-*")}
    assert there == set(wanted)
    train(tmp_path, "by-epoch", training__steps=cut)
    assert_equal(newest(tmp_path), newest(tmp_path, "by-epoch"))


def test_patience_ends_a_training_within_an_epoch(tmp_path: Path) -> None:
    outcome = train(tmp_path, training__eval_steps=2, training__patience=1, training__epochs=50, optimizer__lr=1e-12)
    assert outcome.state == "finished" and outcome.step < 6 and outcome.step % 2 == 0


def test_dry_run_leaves_the_training_alone(tmp_path: Path) -> None:
    train(tmp_path, "with")
    train(tmp_path, "without", training__dry_run=False)
    assert_equal(newest(tmp_path, "with"), newest(tmp_path, "without"))


def test_workers_do_not_change_the_data(tmp_path: Path) -> None:
    train(tmp_path, "none")
    train(tmp_path, "two", data__num_workers=2)
    assert_equal(newest(tmp_path, "none"), newest(tmp_path, "two"))


class Plain(toy.ToyTask):
    """Without batch normalisation and dropout, where pieces of a batch add up exactly."""

    def __init__(self, config: toy.Config, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))


def test_memory_for_a_piece_only_keeps_the_effective_batch(tmp_path: Path) -> None:
    train(tmp_path, "whole", Plain)
    train(tmp_path, "pieces", Plain, data__largest_piece=5)
    whole, pieces = newest(tmp_path, "whole"), newest(tmp_path, "pieces")
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], atol=1e-6, rtol=1e-5)
    warnings = records.read_warnings(records.RunDir(tmp_path / "toy-package" / "pieces"))
    assert [line.partition("pieces of ")[2] for line in warnings] == ["8", "4"]


def test_memory_for_not_even_one_sample(tmp_path: Path) -> None:
    class Full(toy.ToyTask):
        def loss(self, model: nn.Module, batch: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            raise torch.OutOfMemoryError("full")

    with pytest.raises(UserError, match=r"training\.batch_size: the device has no memory"):
        train(tmp_path, task_type=Full)


def test_accumulation_equals_the_large_batch(tmp_path: Path) -> None:
    train(tmp_path, "large", Plain, training__batch_size=32, data__noise=0.0)
    train(tmp_path, "small", Plain, training__batch_size=16, training__accumulation=2, data__noise=0.0)
    large, small = newest(tmp_path, "large"), newest(tmp_path, "small")
    assert rows(tmp_path, "large")[-1]["step"] == rows(tmp_path, "small")[-1]["step"] == 6
    for name in large:
        torch.testing.assert_close(small[name], large[name], atol=1e-6, rtol=1e-5)


def test_accumulation_beyond_an_epoch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.accumulation: 7 is more than the 6 batches"):
        train(tmp_path, training__accumulation=7)


def test_step_that_is_not_finite_is_skipped_on_the_device(tmp_path: Path) -> None:
    """One bad step of six leaves the weights as five steps make them, optimizer state included."""

    class SkippingTask(Plain):
        def loss(self, model: nn.Module, batch: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            batch = {"x": batch["x"] * 0 + 1, "y": batch["y"] * 0 + 1}  # every batch the same
            return super().loss(model, batch)

    common: dict[str, object] = {"training__epochs": 1, "training__dry_run": False, "training__max_skipped_steps": 1}
    common["scheduler__name"] = "constant"
    for optimizer in ("adamw", "muon"):
        train(tmp_path, f"{optimizer}-bad", SkippingTask, data__nan_at=3, optimizer__name=optimizer, **common)
        train(tmp_path, f"{optimizer}-good", SkippingTask, data__rows=80, optimizer__name=optimizer, **common)
        assert_equal(newest(tmp_path, f"{optimizer}-bad"), newest(tmp_path, f"{optimizer}-good"))
    last = [row for row in rows(tmp_path, "adamw-bad") if "train/loss" in row][-1]
    assert last["train/skipped_steps"] == 1
    assert last["train/loss"] < 100  # the mean leaves the bad step out


def test_batch_that_is_not_finite_leaves_the_statistics_alone(tmp_path: Path) -> None:
    """Batch normalisation has seen the bad batch before its step is skipped."""

    class Poisoned(toy.ToyTask):
        def loss(self, model: nn.Module, batch: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            bad = torch.nan if self.calls == 3 else 0.0
            return super().loss(model, {"x": batch["x"] + bad, "y": batch["y"]})

    train(tmp_path, task_type=Poisoned, training__max_skipped_steps=1, training__ema_decay=0.9)
    assert [name for name, tensor in newest(tmp_path).items() if not torch.isfinite(tensor).all()] == []
    assert all(row["val/loss"] < 1000 for row in rows(tmp_path) if "val/loss" in row)
    assert [row["train/skipped_steps"] for row in rows(tmp_path) if "train/skipped_steps" in row][-1] == 1


def test_metric_that_is_not_finite_is_no_progress_and_said(tmp_path: Path) -> None:
    class Lost(toy.ToyTask):
        def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
            return {"val/loss": float("nan")}

    outcome = train(tmp_path, task_type=Lost)
    assert outcome.best == {}
    warnings = records.read_warnings(records.RunDir(tmp_path / "toy-package" / "run"))
    assert "val/loss is nan at step 6: it counts as no progress" in warnings[0]


def test_memory_that_runs_out_later_gets_one_line(tmp_path: Path) -> None:
    class Growing(toy.ToyTask):
        def loss(self, model: nn.Module, batch: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            if self.calls == 4:
                raise torch.OutOfMemoryError("a pretended device is full")
            return super().loss(model, batch)

    with pytest.raises(UserError, match=r"out of memory at step 3: use --training\.micro_batch 8"):
        train(tmp_path, task_type=Growing)


def test_loss_that_is_not_finite_stops_the_run_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the gradient was not finite in 1 of 6 steps.*lower --lr") as caught:
        train(tmp_path, data__nan_at=3)
    assert "\n" not in str(caught.value)


def test_patience_stops_and_best_is_kept(tmp_path: Path) -> None:
    class Worsening(toy.ToyTask):
        evaluations = 0

        def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
            self.evaluations += 1
            return {"val/loss": [3.0, 1.0, 2.0, 2.0, 2.0][self.evaluations - 1]}

    outcome = train(tmp_path, task_type=Worsening, training__epochs=50, training__patience=2)
    assert (outcome.state, outcome.step, outcome.best) == ("finished", 4 * 6, {"val/loss": 1.0})
    best = (tmp_path / "toy-package" / "run" / "checkpoints" / "best").read_text().strip()
    assert best == "step-12"


def test_metric_that_is_monitored_must_exist(tmp_path: Path) -> None:
    class Other(toy.ToyTask):
        monitor = "val/accuracy"

    with pytest.raises(UserError, match="val/accuracy: no such metric; the evaluation gives val/loss"):
        train(tmp_path, task_type=Other)


def test_every_nth_epoch_is_kept_for_good(tmp_path: Path) -> None:
    train(tmp_path, training__epochs=7, training__keep_every_epochs=3)
    kept = {path.name for path in (tmp_path / "toy-package" / "run" / "checkpoints").glob("step-*")}
    assert {"step-18", "step-36", "step-42"} <= kept
    assert len(kept) <= 5


def test_every_process_goes_on_from_the_checkpoint_that_one_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine the folder may look different yet; what this process would find itself does not count."""
    train(tmp_path)
    run = tmp_path / "toy-package" / "run"
    assert {path.name for path in run.glob("checkpoints/step-*")} == {"step-6", "step-12"}
    chosen = (run / "checkpoints" / "step-6", [])
    monkeypatch.setattr(Runtime, "agree", lambda self, value: chosen if isinstance(value, tuple) else value)
    train(tmp_path, training__epochs=3, training__resume=str(run))
    assert "resumed from step-6 (epoch 1, step 6)" in (run / "train.log").read_text()


def test_gradient_checkpointing_needs_a_model_that_can(tmp_path: Path) -> None:
    config = toy.Config.model_validate({"runtime": {"device": "cpu", "gradient_checkpointing": True}})
    runtime = Runtime.start(config.runtime, 0)
    with pytest.raises(UserError, match=r"runtime\.gradient_checkpointing: Sequential does not support it"):
        trainer.Trainer(config, toy.ToyTask(config, runtime), runtime, records.RunDir(tmp_path))


def test_profile_is_a_trace_of_training_steps(tmp_path: Path) -> None:
    train(tmp_path, logging__profile=True)
    trace = json.loads((tmp_path / "toy-package" / "run" / "profile" / "trace.json").read_text())
    names = {event.get("name", "") for event in trace["traceEvents"]}
    assert "aten::addmm" in names
    assert len([name for name in names if name.startswith("ProfilerStep#")]) == 3


@pytest.mark.parametrize("steps", [4, 6, 9, 99])
def test_steps_end_a_training_within_an_epoch(tmp_path: Path, steps: int) -> None:
    """Of 3 epochs of 6 steps; the schedule ends where the training does, and what is last is evaluated and saved."""
    outcome = train(tmp_path, training__epochs=3, training__steps=steps, scheduler__min_lr=1e-9)
    done = min(steps, 18)
    assert (outcome.state, outcome.step) == ("finished", done)
    found = rows(tmp_path)
    evaluated = [row["step"] for row in found if "val/loss" in row]
    assert evaluated == sorted({*range(6, done + 1, 6), done})
    assert [row["train/lr"] for row in found if "train/lr" in row][-1] < 0.2 * 1e-3
    assert max(row["epoch"] for row in found) == pytest.approx(done / 6, abs=1e-3)


def test_more_steps_go_on_within_the_epoch(tmp_path: Path) -> None:
    """As if it had not been stopped: the epoch goes on with the batches that it has not had."""
    constant = {"scheduler__name": "constant"}
    train(tmp_path, "whole", training__epochs=3, training__steps=11, **constant)
    for steps in (4, 4, 11):
        outcome = train(tmp_path, "parts", training__epochs=3, training__steps=steps, **constant)
        assert (outcome.state, outcome.step) == ("finished", steps)
    assert_equal(newest(tmp_path, "whole"), newest(tmp_path, "parts"))


def test_mostly_warm_up_is_said(tmp_path: Path) -> None:
    train(tmp_path, "cold", scheduler__warmup_steps=9)
    train(tmp_path, "warm", scheduler__warmup_steps=3)
    said = {name: (tmp_path / "toy-package" / name / "train.log").read_text() for name in ("cold", "warm")}
    assert "9 of 12 steps are warm-up" in said["cold"] and "warm-up" not in said["warm"]


def test_samples_are_kept_as_pictures(tmp_path: Path) -> None:
    class Drawing(toy.ToyTask):
        def samples(self, model: nn.Module, runtime: Runtime) -> dict[str, torch.Tensor]:
            torch.rand(5)  # must not disturb the training
            assert not model.training
            return {"grid": torch.full((4, 6, 3), 200, dtype=torch.uint8)}

    train(tmp_path, "plain")
    train(tmp_path, "drawn", Drawing, logging__tracker="tensorboard")
    folder = tmp_path / "toy-package" / "drawn" / "samples"
    assert [path.name for path in sorted(folder.iterdir())] == ["grid-0000006.png", "grid-0000012.png"]
    with Image.open(folder / "grid-0000012.png") as picture:
        assert picture.size == (6, 4) and picture.getpixel((0, 0)) == (200, 200, 200)
    assert_equal(newest(tmp_path, "plain"), newest(tmp_path, "drawn"))


def test_a_training_goes_on_from_an_evaluation_within_an_epoch(tmp_path: Path) -> None:
    steps = {"training__eval_steps": 4, "scheduler__name": "constant", "training__checkpoint_minutes": None}
    train(tmp_path, "whole", **steps)
    train(tmp_path, "parts", training__steps=8, **steps)
    latest = tmp_path / "toy-package" / "parts" / "checkpoints" / "step-8"
    train(tmp_path, "parts", training__resume=str(latest), **steps)
    assert_equal(newest(tmp_path, "whole"), newest(tmp_path, "parts"))
    log = (tmp_path / "toy-package" / "parts" / "train.log").read_text()
    assert "nothing is left" not in log
    train(tmp_path, "parts", training__steps=3, training__resume=str(latest), **steps)
    log = (tmp_path / "toy-package" / "parts" / "train.log").read_text()
    assert "nothing is left to train: 8 steps are done and 3 wanted" in log
    train(tmp_path, "parts", training__resume=str(latest), **steps)
    whole, parts = (
        [(r["step"], r["val/loss"]) for r in rows(tmp_path, name) if "val/loss" in r] for name in ("whole", "parts")
    )
    assert whole == parts and [step for step, _ in whole] == [4, 8, 12]


def test_steps_alone_say_when_a_training_ends(tmp_path: Path) -> None:
    assert train(tmp_path, training__epochs=None, training__steps=15).step == 15
    with pytest.raises(ValueError, match="epochs: null needs steps, or training never ends"):
        train(tmp_path, "endless", training__epochs=None)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("eval_steps", [None, 4, 5])
def test_stopped_at_any_step_and_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eval_steps: int | None, accumulation: int
) -> None:
    """Also at the last one, where the evaluation is still to come."""
    wanted = {"training__eval_steps": eval_steps, "training__accumulation": accumulation}
    whole = train(tmp_path, "whole", **wanted)
    agree = trainer.Trainer._agree
    for at in range(1, whole.step + 1):
        name = f"cut-{at}"
        with monkeypatch.context() as patched:
            patched.setattr(
                trainer.Trainer,
                "_agree",
                lambda self, at=at: (True, False) if self.progress.step == at else agree(self),
            )
            train(tmp_path, name, **wanted)
        train(tmp_path, name, training__resume=str(tmp_path / "toy-package" / name), **wanted)
        assert_equal(newest(tmp_path, "whole"), newest(tmp_path, name))
        found = [[(r["step"], r["val/loss"]) for r in rows(tmp_path, n) if "val/loss" in r] for n in ("whole", name)]
        assert found[0] == found[1], at
