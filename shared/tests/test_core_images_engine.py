"""Finding an engine and saying what is wrong with it; running containers on a real one."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import engine_images as images
import pytest

from shared_core.errors import UserError
from shared_core.images import contents, sdk
from shared_core.images.__main__ import main
from shared_core.images.containers import Options
from shared_core.images.engine import Engine, connect, reference


def refused(monkeypatch: pytest.MonkeyPatch, address: str) -> sdk.UnreachableError:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(sdk.UnreachableError) as raised:
        connect()
    assert "\n" not in str(raised.value)
    return raised.value


def test_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(monkeypatch, f"unix://{tmp_path}/none.sock")
    assert error.what == f"no Docker engine runs here: there is no socket {tmp_path}/none.sock"
    assert "just doctor" in str(error)


def test_nobody_behind_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(f"{tmp_path}/d.sock")
    error = refused(monkeypatch, f"unix://{tmp_path}/d.sock")
    assert "no Docker engine answers at the socket" in error.what
    assert error.advice.startswith("start it")


def test_no_permission() -> None:
    wrapped = RuntimeError("while fetching", ConnectionError("aborted", PermissionError(13, "Permission denied")))
    error = sdk.unreachable(wrapped, "unix:///var/run/docker.sock")
    assert error.what == "no permission to use Docker's socket /var/run/docker.sock"
    assert "usermod -aG docker" in error.advice


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    error = refused(monkeypatch, f"tcp://127.0.0.1:{port}")
    assert str(port) in error.what
    assert "DOCKER_HOST" in error.advice


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout, Python finds the folder docker/ instead."""
    folder = types.ModuleType("docker")
    folder.__path__ = ["docker"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "docker"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "docker", folder)
    with pytest.raises(UserError, match="the library docker is not installed"):
        connect()


def test_something_else_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        error = refused(monkeypatch, f"tcp://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "no Docker engine answers" in error.what


def test_takes_the_current_context_as_the_command_line_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"other").hexdigest()
    meta.mkdir(parents=True)
    host = f"unix://{tmp_path}/other.sock"
    endpoint = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": "other", "Metadata": {}, "Endpoints": endpoint}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "other"}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    with pytest.raises(sdk.UnreachableError, match=r"other\.sock"):
        connect()
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    with pytest.raises(sdk.UnreachableError, match=r"other\.sock"):
        connect()
    with pytest.raises(sdk.UnreachableError, match=r"host\.sock"):  # DOCKER_HOST goes before contexts
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/host.sock")
        connect()
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONTEXT", "missing")
    with pytest.raises(UserError, match="docker context missing: there is none"):
        connect()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    images.engine_or_skip("that containers are started, stopped, read and removed")
    base = images.make_base(tmp_path_factory.mktemp("base"))
    yield images.build(tmp_path_factory.mktemp("image"), base, "latest")
    images.forget()


@pytest.fixture
def engine(tiny: str) -> Iterator[Engine]:
    found = connect()
    yield found
    found.remove_own()
    assert images.left_behind() == []


def shell(**more: object) -> Options:
    return Options(entrypoint=["bash", "-c"], **more)  # type: ignore[arg-type]


def test_runs_to_the_end(engine: Engine, tiny: str) -> None:
    lines: list[str] = []
    result = engine.run(tiny, ["echo one; echo -n two >&2; exit 7"], shell(), out=lines.append)
    assert result.code == 7
    assert sorted(lines) == ["one", "two"]
    assert "one" in result.logs
    assert images.left_behind() == []


def test_root_is_read_only_and_the_network_cut_off(engine: Engine, tiny: str) -> None:
    script = (
        "echo > /tmp/x && echo > /cache/x || exit 1; [ -e /sys/class/net/eth0 ] && exit 2; "
        "echo > /workspace/data/x && exit 3; id -u"
    )
    result = engine.run(tiny, [script], shell())
    assert result.code == 0, result.logs
    assert "1000" in result.logs.splitlines()  # an engine may deliver the complaint, from the other stream, after it
    assert engine.run(tiny, ["[ -e /sys/class/net/eth0 ]"], shell(network="bridge")).code == 0


def test_stops_and_reads(engine: Engine, tiny: str) -> None:
    script = "trap 'echo bye; exit 75' TERM; echo hello > /tmp/said; sleep 100 & wait"
    container = engine.start(tiny, [script], shell(read_only=False))
    while container.read("/tmp/said") is None:
        assert container.is_running()
    assert container.read("/tmp/said") == b"hello\n"
    assert container.read("/tmp/none") is None
    result = container.stop(30)
    assert (result.code, result.logs) == (75, "bye\n")
    assert not container.is_running()
    container.remove()
    container.remove()  # twice does no harm


def test_kills_what_does_not_end(engine: Engine, tiny: str) -> None:
    container = engine.start(tiny, ["sleep 100"], shell())
    with pytest.raises(sdk.TooLongError, match="did not end within 1 s and was killed"):
        container.wait(limit=1)
    assert container.handle.wait()["StatusCode"] == 137


def test_follows_the_newest_container_of_a_package(engine: Engine, tiny: str) -> None:
    engine.create(tiny)
    engine.start(tiny, ["for n in 1 2 3; do echo $n; sleep .1; done; echo -n end"], shell())
    lines: list[str] = []
    engine.newest(images.NAME).follow(lines.append)
    assert lines == ["1", "2", "3", "end"]
    with pytest.raises(UserError, match="never-started: has no container; start one: `just train never-started`"):
        engine.newest("never-started")


def test_copies_out_of_a_volume(engine: Engine, tiny: str, tmp_path: Path) -> None:
    mount = {engine.volume(f"{images.NAME}-runs"): "/workspace/runs"}
    written = engine.run(tiny, ["mkdir runs/a && echo 1 > runs/a/x && echo 2 > runs/a/y"], shell(volumes=mount))
    assert written.code == 0, written.logs
    container = engine.create(tiny, options=shell(volumes=mount))  # it need not run
    copied = container.copy_out("/workspace/runs/a", tmp_path / "out")
    assert {path.name: path.read_text() for path in copied.iterdir()} == {"x": "1\n", "y": "2\n"}
    with pytest.raises(UserError, match="there is no /workspace/runs/b"):
        container.copy_out("/workspace/runs/b", tmp_path / "out")
    with pytest.raises(UserError, match="more than the 3 bytes allowed"):
        container.copy_out("/workspace/runs/a", tmp_path / "small", max_bytes=3)
    with pytest.raises(UserError, match=r"has more than 9 bytes"):
        container.copy_out("/bin", tmp_path / "small", max_bytes=9)
    assert not (tmp_path / "small").exists()


def test_copies_no_links_out(engine: Engine, tiny: str, tmp_path: Path) -> None:
    container = engine.start(tiny, ["mkdir /tmp/a; cp -s /bin/bash /tmp/a/link"], shell(read_only=False))
    container.wait()
    with pytest.raises(UserError, match="link"):
        container.copy_out("/tmp/a", tmp_path / "out")


def test_looks_into_an_image(engine: Engine, tiny: str) -> None:
    image = engine.image(tiny)
    assert (image.user, image.package) == ("1000:1000", images.NAME)
    assert image.environment["PATH"] == "/bin"
    assert any("entrypoint.sh" in line for line in image.history)
    assert contents.secrets_in_layers(engine.archive(tiny), b"plays a package's entry point") == [
        "/entrypoint.sh: plays ..."
    ]


def test_prunes_what_it_has_labelled_and_nothing_else(engine: Engine, tiny: str) -> None:
    other = connect()
    stranger = images.docker("create", tiny)  # with the labels of its image, as everybody's containers
    try:
        mine, theirs = engine.volume(f"{images.NAME}-a"), other.volume(f"{images.NAME}-b")
        engine.create(tiny)
        other.start(tiny, ["sleep 100"], shell())
        assert len(engine.remove_own()) == 2
        left = images.left_behind()
        assert mine not in left
        assert theirs in left
        assert len([name for name in left if name.startswith(tiny)]) == 2
        assert len(other.remove_own()) == 2  # also what runs
        assert [name for name in images.left_behind() if tiny not in name] == []
        assert stranger[:12] in images.docker("ps", "--all", "--quiet")
    finally:
        other.remove_own()
        images.docker("rm", stranger)


class _Pretended:
    """A client that notes what it is asked to list and to prune."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.containers = self.volumes = self.images = self

    def list(self, filters: object, all: bool = False) -> list[object]:
        self.asked.append((filters, all))
        return []

    def prune(self, filters: object) -> dict[str, object]:
        self.asked.append(filters)
        return {"ImagesDeleted": [{"Untagged": "a:latest"}, {"Deleted": "sha256:0"}]}


def test_prunes_images_only_where_it_is_asked_to() -> None:
    pretended = _Pretended()
    ours = {"label": "training.smoke"}
    assert Engine(pretended, "unix:///x").prune() == []
    assert pretended.asked == [(ours, True), (ours, False)]
    assert Engine(pretended, "unix:///x").prune(images=True) == ["a:latest"]
    assert pretended.asked[-1] == {"dangling": False, "label": "training.package"}


def test_says_what_is_not_built(engine: Engine) -> None:
    for ask in (engine.image, lambda name: engine.start(name, [])):
        with pytest.raises(UserError, match="no such image; run `just build never-built`"):
            ask("never-built:latest")


def test_says_that_the_engine_has_no_gpus(engine: Engine, tiny: str) -> None:
    if "nvidia" in engine.info()["Runtimes"] or engine.info().get("DiscoveredDevices"):
        pytest.skip("this engine has GPUs: NOT PROVEN: what is said where it has none")
    with pytest.raises(UserError, match="cannot give a container GPUs; install the NVIDIA Container Toolkit"):
        engine.start(tiny, ["--help"], Options(gpu=True))
    assert images.left_behind() == []


def test_help_is_quick_and_needs_no_docker(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "doctor" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["dctor"])
    assert ended.value.code == 2


def test_image_is_called_as_compose_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAG", raising=False)
    monkeypatch.delenv("PREFIX", raising=False)
    assert reference("mabe-behavior", tmp_path) == "mabe-behavior:latest"
    (tmp_path / ".env").write_text("TAG='v2'\nPREFIX=example.org:5000/team/\n")
    assert reference("mabe-behavior", tmp_path) == "example.org:5000/team/mabe-behavior:v2"
    monkeypatch.setenv("TAG", "v3")
    assert reference("mabe-behavior", tmp_path) == "example.org:5000/team/mabe-behavior:v3"
    assert reference("mabe-behavior:v1", tmp_path) == "mabe-behavior:v1"
