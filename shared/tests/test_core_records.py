"""The run directory: which folder a run gets, and that nothing written in it is ever half there."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest

from shared_core import records, trackers
from shared_core.errors import UserError
from shared_core.records import Recorder, RunDir
from shared_core.settings import Logging

QUIET = Logging(tracker="none")


def finish(run: RunDir) -> None:
    run.status("finished")
    run.close()


def python(code: str, *args: object) -> subprocess.Popen:
    """A separate process, with this one's import path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_unfinished_run_goes_on_and_a_finished_one_gets_a_neighbour(tmp_path):
    first = RunDir.open(tmp_path, "pkg", "fast", "auto")
    assert first.path == tmp_path / "pkg" / "fast" and first.checkpoints.is_dir()
    for state in ("running", "preempted", "failed"):
        first.status(state)
        first.close()
        first = RunDir.open(tmp_path, "pkg", "fast", "auto")
        assert first.path.name == "fast"
    finish(first)
    second = RunDir.open(tmp_path, "pkg", "fast", "auto")
    assert second.path.name == "fast-2"
    second.close()
    assert RunDir.open(tmp_path, "pkg", "fast", "auto").path.name == "fast-2"


def test_never_always_takes_a_new_folder(tmp_path):
    names = [RunDir.open(tmp_path, "pkg", "fast", "never").path.name for _ in range(11)]
    assert names == ["fast"] + [f"fast-{n}" for n in range(2, 12)]  # in the order of numbers, not of letters


def test_other_names_in_the_folder_do_not_count(tmp_path):
    for name in ("fast-best", "faster", "fast-2x", "slow-9"):
        (tmp_path / "pkg" / name).mkdir(parents=True)
    assert RunDir.open(tmp_path, "pkg", "fast", "never").path.name == "fast"


def test_a_run_that_its_owner_called_by_a_number_is_no_successor(tmp_path):
    """Neither gone on with nor counted nor written over."""

    def train(name):
        run = RunDir.open(tmp_path, "pkg", name, "auto")
        run.write_config(f"name: {name}\n")
        return run

    for name in ("fast-2", "fast-7"):
        train(name).close()
    for expected in ("fast", "fast-3", "fast-4"):
        run = train("fast")
        assert run.name == expected
        run.close()
        assert train("fast").name == expected  # unfinished: goes on
        finish(run)
    assert {path.name for _, path in records.series(tmp_path / "pkg", "fast")} == {"fast", "fast-3", "fast-4"}


def test_a_path_names_a_run_or_a_checkpoint_in_it(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    finish(run)
    (run.checkpoints / "step-10").mkdir()
    assert RunDir.open(tmp_path, "pkg", "fast", str(run.path)).path == run.path
    assert RunDir.open(tmp_path, "pkg", "fast", str(run.checkpoints / "step-10")).path == run.path
    with pytest.raises(UserError, match="no such folder"):
        RunDir.open(tmp_path, "pkg", "fast", str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no run folder"):
        records.find(tmp_path / "empty")


def test_a_run_that_another_process_writes_is_refused_until_that_process_dies(tmp_path):
    holder = python(
        """
        import sys, time, pathlib
        from shared_core.records import RunDir
        run = RunDir.open(pathlib.Path(sys.argv[1]), "pkg", "fast", "auto")
        print("open", flush=True)
        time.sleep(60)
        """,
        tmp_path,
    )
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=rf"being written by process {holder.pid} .*--name"):
            RunDir.open(tmp_path, "pkg", "fast", "auto")
        assert RunDir.open(tmp_path, "pkg", "fast", "never").path.name == "fast-2"
    finally:
        holder.kill()
        holder.wait()
    assert RunDir.open(tmp_path, "pkg", "fast", str(tmp_path / "pkg" / "fast")).read_status()["state"] == "running"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_one_clear_line(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match="permission denied"):
        RunDir.open(tmp_path / "runs", "pkg", "fast", "auto")


def test_a_file_in_the_way_is_one_clear_line(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(UserError, match="a file is where a folder should be") as caught:
        RunDir.open(tmp_path / "runs", "pkg", "fast", "auto")
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_the_start_leaves_no_empty_run(tmp_path, monkeypatch):
    def full(path, data):
        raise UserError(f"{path}: no space left")

    monkeypatch.setattr(records.files, "atomic_write", full)
    with pytest.raises(UserError, match="no space left"):
        RunDir.open(tmp_path, "pkg", "fast", "auto")
    assert not (tmp_path / "pkg" / "fast").exists()


def test_a_damaged_status_is_named(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    (run.path / "status.json").write_text('{"state": ')
    with pytest.raises(UserError, match=r"status\.json: cannot be read"):
        RunDir.open(tmp_path, "pkg", "fast", "auto")


def test_status_and_run_information_come_back(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    run.status("preempted", step=12, best={"val/accuracy": np.float64(0.5)})
    assert run.read_status()["state"] == "preempted" and run.read_status()["best"] == {"val/accuracy": 0.5}
    run.write_run({"argv": ["train"], "world": 1})
    run.write_run({"argv": ["train"], "world": 2})
    info = run.read_run()
    assert info["world"] == 2 and [start["world"] for start in info["earlier_starts"]] == [1]
    run.write_config("seed: 0\n")
    assert (run.path / "config.yaml").read_text() == "seed: 0\n"


def test_rows_come_back_with_their_numbers_also_those_json_lacks(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    recorder = Recorder(run, QUIET)
    recorder.log(1, {"train/loss": math.nan, "train/grad_norm": math.inf, "train/lr": np.float32(0.5)})
    recorder.log(2, {"train/loss": 0.1 + 0.2})
    first, second = records.read_metrics(run.path)
    assert math.isnan(first["train/loss"]) and first["train/grad_norm"] == math.inf and first["train/lr"] == 0.5
    assert second["train/loss"] == 0.1 + 0.2  # every digit
    json.loads(run.metrics.read_text().splitlines()[0], parse_constant=pytest.fail)  # strict JSON


def test_a_torn_last_line_is_dropped_by_readers_and_cut_by_the_next_writer(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    recorder = Recorder(run, QUIET)
    recorder.log(1, {"train/loss": 1.0})
    recorder.close()
    with run.metrics.open("ab") as file:
        file.write(b'{"step": 2, "train/lo')
    assert [row["step"] for row in records.read_metrics(run.metrics)] == [1]
    recorder = Recorder(run, QUIET)
    recorder.log(2, {"train/loss": 2.0})
    assert [row["step"] for row in records.read_metrics(run.metrics)] == [1, 2]


def test_truncating_to_a_checkpoints_offset_forgets_exactly_the_rows_after_it(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    recorder = Recorder(run, QUIET)
    offsets = []
    for step in range(1, 6):
        recorder.log(step, {"train/loss": float(step)})
        offsets.append(recorder.offset())
    recorder.close()
    recorder = Recorder(run, QUIET)
    recorder.truncate(offsets[2])
    recorder.log(4, {"train/loss": 40.0})
    assert [row["train/loss"] for row in records.read_metrics(run.path)] == [1.0, 2.0, 3.0, 40.0]
    recorder.truncate(offsets[2] + 5)  # inside a line: the line is torn
    assert [row["step"] for row in records.read_metrics(run.path)] == [1, 2, 3]
    recorder.truncate(10**6)  # beyond the end: never fills the file up with zeros
    assert [row["step"] for row in records.read_metrics(run.path)] == [1, 2, 3]
    recorder.truncate(0)
    assert records.read_metrics(run.path) == []


def test_elapsed_time_goes_on_over_a_resume(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(records.time, "monotonic", lambda: now[0])
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    recorder = Recorder(run, QUIET)
    now[0] = 10.0
    recorder.log(1, {})
    now[0] = 500.0  # the machine was away
    recorder = Recorder(run, QUIET)
    now[0] = 505.0
    recorder.log(2, {})
    assert [row["elapsed_s"] for row in records.read_metrics(run.path)] == [10.0, 15.0]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    run.metrics.write_text('{"step": 1}\ngarbage\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is no metrics row"):
        records.read_metrics(run.path)


def test_a_process_killed_while_logging_leaves_only_whole_rows(tmp_path):
    writer = python(
        """
        import sys, pathlib
        from shared_core.records import Recorder, RunDir
        from shared_core.settings import Logging
        run = RunDir.open(pathlib.Path(sys.argv[1]), "pkg", "fast", "auto")
        recorder = Recorder(run, Logging(tracker="none"))
        print("go", flush=True)
        for step in range(1, 10**9):
            recorder.log(step, {"train/loss": 1.0 / step})
        """,
        tmp_path,
    )
    assert writer.stdout.readline() == "go\n"
    run = RunDir(tmp_path / "pkg" / "fast")
    while len(records.read_metrics(run.path)) < 100:
        assert writer.poll() is None, writer.stderr.read()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    steps = [row["step"] for row in records.read_metrics(run.path)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 100


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_while_logging_is_one_clear_line(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    recorder = Recorder(run, QUIET)
    with open("/dev/full", "ab", buffering=0) as full:
        recorder._metrics = full
        with pytest.raises(UserError, match=r"metrics\.jsonl: the disk is full"):
            recorder.log(1, {"train/loss": 1.0})


def test_other_processes_write_nothing(tmp_path):
    recorder = Recorder(RunDir(tmp_path / "nowhere"), QUIET, enabled=False)
    recorder.log(1, {"train/loss": 1.0})
    recorder.message("hello")
    recorder.truncate(5)
    assert recorder.offset() == 0
    recorder.close()
    assert not (tmp_path / "nowhere").exists()


def test_messages_and_warnings_are_logged_with_their_time(tmp_path, capsys):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    recorder = Recorder(run, QUIET)
    recorder.message("epoch 1\nloss 0.5")
    recorder.message("skipped a step: gradient is not finite", warning=True)
    assert "epoch 1" in capsys.readouterr().err
    assert run.log.read_text().count("\n") == 3
    (warning,) = records.read_warnings(run)
    assert warning.endswith(" skipped a step: gradient is not finite") and warning.startswith("20")
    assert records.read_warnings(RunDir(tmp_path)) == []


def test_evaluations_come_back_by_split(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    accuracy = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50, "method": "Wilson 95 %"}
    evaluation = {"checkpoint": "step-3", "n": 50, "headline": "accuracy", "metrics": {"accuracy": accuracy}}
    records.write_evaluation(run, "val", evaluation)
    assert records.read_evaluations(run) == {"val": {"split": "val", **evaluation}}
    with pytest.raises(UserError, match="headline 'auc' is none of its metrics"):
        records.write_evaluation(run, "val", {**evaluation, "headline": "auc"})


def test_tensorboard_receives_the_rows(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    recorder = Recorder(run, Logging(tracker="tensorboard"))
    recorder.log(7, {"train/loss": 0.25})
    recorder.close()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run.path / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(7, 0.25)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_receives_the_rows_and_is_resumed_under_the_same_id(tmp_path, monkeypatch, name):
    calls: list = []
    fake = types.SimpleNamespace(
        init=lambda **options: calls.append(options),
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finish"),
    )
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(trackers, "check", lambda name: None)
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    for step in (1, 2):
        recorder = Recorder(run, Logging(tracker=name))
        recorder.log(step, {"train/loss": 0.5})
        recorder.close()
    first, row, end, again = calls[:4]
    assert first["project"] == "pkg" and first["name"] == "fast" and first["resume"] == "allow"
    assert row[0] == 1 and row[1]["train/loss"] == 0.5 and end == "finish" and first == again


def test_a_missing_tracker_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    with pytest.raises(UserError, match=r"pip install 'shared-core\[wandb\]'"):
        Recorder(run, Logging(tracker="wandb"))


def test_importing_records_is_cheap():
    heavy = ("torch", "matplotlib", "tensorboard")
    code = f"import sys, shared_core.records; print([name for name in {heavy} if name in sys.modules])"
    assert python(code).communicate()[0].strip() == "[]"
