"""`launch --on modal`, without Modal: what is refused, what would be sent, what happens in the container."""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy

from shared_core import manifest
from shared_core.errors import UserError
from shared_core.launch import modal_call, modal_files, modal_image, modal_run
from shared_core.launch.plan import MODAL_GPUS, Inner, LaunchPlan

modal = pytest.importorskip("modal", reason="the extra `modal` is not installed")
ROOT = Path(__file__).parents[2]
INNER = Inner("toy", "toy-package", "toy", "train", (), None, None, "default", Path("runs"), Path("data"))
PLAN = LaunchPlan(on="modal", inner=INNER, gpu="A10", timeout=3600, volume="training-data")
# a socket that connects, or a name that is looked up, ends the process with a status of its own
OFFLINE = """
import os, socket, sys
def refuse(*arguments, **more):
    os.write(2, b"THE NETWORK WAS USED")
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from modal.__main__ import main
sys.argv[0] = "modal"
main()
"""


def modal_run_command(*words: str) -> subprocess.CompletedProcess[str]:
    """`modal run` of the app, with credentials that nobody has given."""
    environment = {**os.environ, "MODAL_TOKEN_ID": "ak-none", "MODAL_TOKEN_SECRET": "as-none"}
    command = [sys.executable, "-c", OFFLINE, "run", "-m", f"{modal_call.APP}::train", *words]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_help_shows_typed_options() -> None:
    done = modal_run_command("--help")
    assert done.returncode == 0, done.stderr
    assert "A100-80GB" in done.stdout
    assert "--gpus [1|2|3|4|5|6|7|8]" in done.stdout
    assert "--restarts INTEGER" in done.stdout
    assert "--wait / --no-wait" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "A11"], "--gpu: Modal has no 'A11' (did you mean"),
        (["--gpu", "A10", "--gpus", "5"], "--gpus: 5; a container has 1 to 4 A10"),
        (["--gpu", "H100", "--gpus", "many"], "--gpus: invalid int"),
        (["--timeout", "25h"], "--timeout: 25h; Modal allows"),
        (["--timeout", "0"], "--timeout: 0s"),
        (["--memory", "16384G"], "--memory:"),
        (["--memory", "much"], "--memory: 'much'"),
        (["--volume", "a/b"], "--volume: 'a/b'"),
        (["--restarts", "-1"], "--restarts: -1"),
        (["--runs", "/elsewhere"], "paths.runs"),
        (["--command", "evaluate", "--gpus", "2"], "--verb evaluate"),
        (["--config-file", "missing.yaml"], "--config: cannot read missing.yaml"),
        (["--package", "none-such"], "--package:"),
        (["--bogus", "1"], "--bogus: no such option"),
    ],
    ids=str,
)
def test_wrong_option_is_refused_before_anything_is_sent(words: list[str], said: str) -> None:
    done = modal_run_command("--package", "pair-compare-stacking", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "NETWORK" not in done.stderr
    assert "Traceback" not in done.stderr


def test_right_options_get_as_far_as_the_network() -> None:
    """Otherwise the test above would pass with an app that refuses everything."""
    done = modal_run_command("--package", "pair-compare-stacking", "--gpu", "A10G", "--timeout", "24h")
    assert (done.returncode, "NETWORK" in done.stderr) == (99, True), done.stderr


LOOK = """
import json, sys
from shared_core.launch import modal_app
spec = modal_app.in_container._spec_
found = {"gpus": spec.gpus, "memory": spec.memory, "secrets": len(spec.secrets), "volumes": list(spec.volumes)}
print(json.dumps(found))
"""


def look(*words: str, **variables: str) -> dict[str, Any]:
    """What the function of the app is, built for a command line, or in a container."""
    code = LOOK.replace("import json, sys\n", f"import json, sys\nsys.argv = {['modal', 'run', *words]!r}\n", 1)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_function_is_what_the_options_say() -> None:
    words = ["-m", f"{modal_call.APP}::train", "--package", "pair-compare-stacking", "--gpu", "L40S", "--gpus", "2"]
    built = look(*words, "--memory", "16G", "--secret", "hub")
    assert built == {"gpus": "L40S:2", "memory": 16384, "secrets": 2, "volumes": ["/workspace"]}
    assert look(*words[:4], "--gpu", "none")["gpus"] is None


@pytest.mark.parametrize("secret", ["", "hub"])
def test_container_builds_a_function_with_as_many_secrets(secret: str) -> None:
    """Modal refuses to start a function that depends on another number of things than the one that was sent."""
    words = ["-m", f"{modal_call.APP}::train", "--package", "pair-compare-stacking"]
    there = look(*words, *(["--secret", secret] if secret else []))
    assert look(LAUNCH_SECRET=secret)["secrets"] == there["secrets"] == 1 + bool(secret)


def test_gpus_of_the_app_are_those_of_the_plan() -> None:
    from typing import get_args

    from shared_core.launch import modal_app

    assert set(get_args(modal_app.Gpu)) == {"none", "A10G", *MODAL_GPUS}


def test_call_carries_the_whole_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared_core.launch import modal_app

    file = tmp_path / "mine.yaml"
    file.write_text("training: {epochs: 2}\n")
    inner = replace(INNER, flags=("--optimizer.lr", "0.1", "--name=it's"), config_file=file, name="mine")
    plan = replace(
        PLAN, inner=inner, gpu="L4", gpus=2, memory=2048, restarts=2, secret="hub", image="a/b:1", detach=True
    )
    words = shlex.split(modal_call.render(plan))
    assert words[0] == "MODAL_IMAGE_BUILDER_VERSION=2025.06"
    assert words[1:] == modal_call.command(plan)
    parsed = modal_app.parse(words)
    assert parsed is not None
    assert replace(parsed, detach=True, inner=inner) == plan
    assert parsed.inner.words() == inner.words()
    assert (parsed.inner.name, parsed.inner.runs, parsed.inner.module) == ("mine", Path("runs"), "toy_package")


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modal_call.importlib.util, "find_spec", lambda name: None)
    for call in (modal_call.submit, modal_files.listing):
        with pytest.raises(UserError, match=r"shared-core\[modal\]"):
            call(PLAN)


def test_build_gets_every_file_that_the_dockerfile_takes(tmp_path: Path) -> None:
    """Modal's client looks at COPY alone: what binds, or has a variable in its name, would not be sent."""
    from modal._image import _create_context_mount

    package = "pair-compare-stacking"
    text = modal_image.dockerfile(ROOT, package)
    ignore = modal.FilePatternMatcher.from_file(ROOT / ".dockerignore")
    mount = _create_context_mount(text.splitlines(), ignore_fn=ignore, context_dir=ROOT)
    [entry] = mount._entries
    sent = {str(remote).lstrip("/") for _, remote in entry.get_files_to_upload()}
    assert {f"docker/locks/{name}.txt" for name in ("torch", "shared-core", package)} <= sent
    assert {"docker/entrypoint.sh", "shared/pyproject.toml", f"packages/{package}/pyproject.toml"} <= sent
    assert "docker/accelerate/cpu.yaml" in sent
    assert "shared/src/shared_core/launch/modal_run.py" in sent
    assert any(name.endswith("configs/demo.yaml") for name in sent)
    assert not [name for name in sent if "/tests/" in name or name.startswith(("runs/", "data/", ".git"))]
    instructions = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [line for line in instructions if "--mount" in line or "PACKAGE}" in line.split("ARG")[0]]
    assert instructions[-2:] == ["USER root", "ENTRYPOINT []"]
    unchanged = (ROOT / modal_image.DOCKERFILE).read_text()
    assert text.count("\nRUN ") == unchanged.count("\nRUN "), "a step was lost on the way"


def test_package_that_is_not_there() -> None:
    with pytest.raises(UserError, match="--package"):
        modal_image.dockerfile(ROOT, "../shared")
    with pytest.raises(UserError, match="--package"):
        modal_image.dockerfile(ROOT, "none-such")


def in_container(tmp_path: Path, script: str, commits: list[float], seconds: int = 60) -> int:
    """Runs a module of that text where the run would run."""
    (tmp_path / "job.py").write_text(script)
    run = Path("runs/toy-package/default")
    (tmp_path / run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (tmp_path / run / "config.yaml").write_text("name: default\n")

    def commit() -> None:
        commits.append(time.monotonic())
        (tmp_path / f"commit-{len(commits)}").touch()

    return modal_run.start(["train"], "job", run, 1, {}, seconds, commit, tmp_path)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modal_run, "_EVERY", 0.05)


LATEST = "open('runs/toy-package/default/checkpoints/latest', 'w').write"


WAITING = (
    "import signal, sys, time\n"
    f"def save(*_):\n    {LATEST}('last'); sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, save)\n"
    f"{LATEST}('first')\nwhile True:\n    time.sleep(0.05)\n"
)


def test_every_checkpoint_is_committed(tmp_path: Path, often: None) -> None:
    """The run waits for each, so that a busy machine sees as many as an idle one; `latest` moves at once."""
    commits: list[float] = []
    script = (
        "import os, time\nlatest = 'runs/toy-package/default/checkpoints/latest'\nfor step in range(3):\n"
        "    with open('new', 'w') as file:\n        file.write(f'step-{step}')\n    os.replace('new', latest)\n"
        "    while not os.path.exists(f'commit-{step + 1}'):\n        time.sleep(0.02)\n"
    )
    assert in_container(tmp_path, script, commits) == 0
    assert len(commits) == 4, "one for each, and one at the end"


def test_interrupted_run_is_worth_another_attempt_and_a_mistaken_one_is_not(tmp_path: Path, often: None) -> None:
    commits: list[float] = []
    for ends in ("raise SystemExit(75)", "import os; os.kill(os.getpid(), 9)"):
        with pytest.raises(modal_run.InterruptedRunError):
            in_container(tmp_path, ends, commits)
    assert in_container(tmp_path, "raise SystemExit(2)", commits) == 2
    assert len(commits) == 3, "what there is, is kept in any case"


def test_attempt_is_stopped_with_a_checkpoint_before_modal_stops_it(tmp_path: Path, often: None) -> None:
    commits: list[float] = []
    with pytest.raises(modal_run.InterruptedRunError, match="preempted"):
        in_container(tmp_path, WAITING, commits, seconds=1)
    assert (tmp_path / "runs/toy-package/default/checkpoints/latest").read_text() == "last"


def test_container_that_is_taken_away_leaves_a_checkpoint(tmp_path: Path, often: None) -> None:
    """Modal interrupts the function: the run is asked for a checkpoint, once, and that is committed."""
    seen: list[str] = []
    latest = tmp_path / "runs/toy-package/default/checkpoints/latest"

    def commit() -> None:
        seen.append(latest.read_text())
        if seen == ["first"]:
            raise KeyboardInterrupt

    (tmp_path / "job.py").write_text(WAITING)
    latest.parent.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        modal_run.start(["train"], "job", Path("runs/toy-package/default"), 1, {}, 60, commit, tmp_path)
    assert seen == ["first", "last"]


def test_configuration_file_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modal_run, "CONFIG", tmp_path / "there")
    (tmp_path / "job.py").write_text("")
    run = Path("runs/toy-package/default")
    assert modal_run.start([], "job", run, 1, {"../mine.yaml": "seed: 1\n"}, 60, lambda: None, tmp_path) == 0
    assert (tmp_path / "there" / "mine.yaml").read_text() == "seed: 1\n"


class Kind(Enum):
    FILE = 1
    DIRECTORY = 2


@dataclass
class Store:
    """A folder that answers as a volume of Modal does."""

    root: Path
    damage: str = ""

    def listdir(self, path: str, recursive: bool = False) -> list[SimpleNamespace]:
        folder = self.root / path
        if not folder.exists():
            raise modal.exception.NotFoundError("No such file or directory")
        found = sorted(folder.rglob("*") if recursive else folder.iterdir())
        kinds = {True: Kind.DIRECTORY, False: Kind.FILE}
        return [SimpleNamespace(path=str(p.relative_to(self.root)), type=kinds[p.is_dir()]) for p in found]

    def read_file(self, path: str) -> Any:
        if not (self.root / path).is_file():
            raise FileNotFoundError(path)
        data = (self.root / path).read_bytes()
        yield data[:3]
        yield data[3:] if path.rpartition("/")[2] != self.damage else data[4:]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A volume with a run of two checkpoints on it."""
    found = Store(tmp_path / "volume")
    run = found.root / "runs" / "toy-package" / "default"
    for sequence, step in enumerate((8, 12), 1):
        folder = run / "checkpoints" / f"step-{step}"
        (folder / "shards").mkdir(parents=True)
        names = ["state.json", "shards/0.bin"]
        for name in names:
            (folder / name).write_text(f"{step} of {name}")
        manifest.write(folder, sequence, {"step": step}, {name: manifest.entry(folder / name) for name in names})
    (run / "checkpoints" / "latest").write_text("step-12\n")
    (run / "checkpoints" / "best").write_text("step-8\n")
    for name in ("config.yaml", "run.json", "status.json"):
        (run / name).write_text("{}")
    monkeypatch.setattr(modal_files, "_volume", lambda plan: found)
    monkeypatch.chdir(tmp_path)
    return found


def test_checkpoints_are_listed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.APP.run(["launch", "--on", "modal", "--checkpoints"]) == 0
    assert capsys.readouterr().out == "step-8  best\nstep-12  latest\n"
    (store.root / "runs/toy-package/default/checkpoints/best").write_text("step-12\n")
    assert toy.APP.run(["launch", "--on", "modal", "--checkpoints"]) == 0
    assert capsys.readouterr().out == "step-8\nstep-12  best, latest\n"


@pytest.mark.parametrize(("which", "name"), [("best", "step-8"), ("latest", "step-12"), ("step-8", "step-8")])
def test_checkpoint_comes_to_where_the_verbs_look(which: str, name: str, store: Store) -> None:
    assert toy.APP.run(["launch", "--on", "modal", "--download", which]) == 0
    run = Path("runs/toy-package/default")
    assert manifest.verify(run / "checkpoints" / name) is None
    assert (run / "config.yaml").is_file()
    with pytest.raises(UserError, match="is here already"):
        toy.APP.run(["launch", "--on", "modal", "--download", which])
    assert toy.APP.run(["launch", "--on", "modal", "--download", which, "--out", "there"]) == 0
    assert manifest.verify(Path("there")) is None


@pytest.mark.parametrize("damaged", ["state.json", "0.bin", "manifest.json"])
def test_damaged_download_leaves_nothing(damaged: str, store: Store) -> None:
    store.damage = damaged
    with pytest.raises(UserError, match="arrived damaged"):
        toy.APP.run(["launch", "--on", "modal", "--download", "best", "--out", "there"])
    assert [path.name for path in Path().iterdir()] == ["volume"]


def test_download_stays_in_its_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    away = SimpleNamespace(path="runs/toy-package/default/checkpoints/step-8/../../../../../away", type=Kind.FILE)
    listed = store.listdir
    monkeypatch.setattr(store, "listdir", lambda path, recursive=False: [away] if recursive else listed(path))
    with pytest.raises(UserError, match="leads out"):
        toy.APP.run(["launch", "--on", "modal", "--download", "best"])


def test_nothing_to_list_or_fetch(store: Store) -> None:
    for words, said in [
        (["--checkpoints", "--name", "other"], "has no runs/toy-package/other/checkpoints"),
        (["--download", "step-9"], "there are step-8, step-12"),
        (["--download", "../../x"], "no checkpoint"),
        (["--download", "best", "--dry-run"], "--dry-run"),
    ]:
        with pytest.raises(UserError, match=said):
            toy.APP.run(["launch", "--on", "modal", *words])


def test_error_of_modal_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(plan: LaunchPlan) -> None:
        raise modal.exception.AuthError("Token missing. Could not authenticate client.\nmore")

    monkeypatch.setattr(modal_files, "_volume", refuse)
    with pytest.raises(UserError, match=r"^--on modal: Token missing.*modal setup`$"):
        toy.APP.run(["launch", "--on", "modal", "--checkpoints"])
