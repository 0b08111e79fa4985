"""Files that are whole or absent; downloads and archives that are checked before they are believed."""

from __future__ import annotations

import errno
import hashlib
import http.server
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shared_core import files
from shared_core.errors import UserError

# ---- atomic writes


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_atomic_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    files.atomic_write(target, "grün")
    assert target.read_bytes() == "grün".encode()
    files.atomic_write(target, b"\x00\x01")
    assert target.read_bytes() == b"\x00\x01"
    assert names(target.parent) == {"b.txt"}


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    files.atomic_write(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    target = tmp_path / "kept"
    files.atomic_write(target, "old")

    def fail(_: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "sync", fail)
    with pytest.raises(UserError) as caught:
        files.atomic_write(target, "new")
    assert str(target) in str(caught.value) and "\n" not in str(caught.value)
    assert target.read_text() == "old" and names(tmp_path) == {"kept"}


def test_atomic_path_keeps_the_suffix_and_cleans_up_after_any_exception(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "array.npz") as temporary:
        np.savez(temporary, a=np.arange(3))  # adds .npz unless it is there
    assert names(tmp_path) == {"array.npz"}
    with pytest.raises(KeyboardInterrupt), files.atomic_path(tmp_path / "other") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == {"array.npz"}


def test_atomic_dir_replaces_a_folder_as_a_whole(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with files.atomic_dir(tmp_path / "set") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / content).write_text(content)
    assert names(tmp_path) == {"set"} and names(tmp_path / "set" / "sub") == {"two"}
    with pytest.raises(ValueError, match="stop"), files.atomic_dir(tmp_path / "set") as folder:
        (folder / "half").write_text("")
        raise ValueError("stop")
    assert names(tmp_path) == {"set"} and names(tmp_path / "set" / "sub") == {"two"}


def test_a_killed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "kept"
    files.atomic_write(target, "old")

    def write_and_die() -> None:
        files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[attr-defined]
        files.atomic_write(target, "new")

    child = multiprocessing.get_context("fork").Process(target=write_and_die)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_require_space_says_how_much_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.require_space(tmp_path / "not" / "yet" / "there", 1, "a byte")
    monkeypatch.setattr(files, "free_bytes", lambda path: 3 * 2**30)
    with pytest.raises(UserError, match=r"the data set needs 4\.0 GiB but only 3\.0 GiB are free"):
        files.require_space(tmp_path, 4 * 2**30, "the data set")


# ---- hashes


def test_hashes_agree_with_git_and_sha256sum(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(bytes(range(256)) * 5000)
    assert files.sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    git = subprocess.run(["git", "hash-object", str(file)], capture_output=True, text=True, cwd=tmp_path)
    assert git.returncode != 0 or files.git_blob_id(file) == git.stdout.strip()
    file.write_bytes(b"hello\n")
    assert files.git_blob_id(file) == "ce013625030ba8dba906f756967f9e9ca394464a"  # any git tutorial's first blob
    with pytest.raises(UserError, match="missing: no such file"):
        files.sha256(tmp_path / "missing")


# ---- .npz

ARRAYS = npst.arrays(
    st.one_of(npst.scalar_dtypes(), npst.unicode_string_dtypes(max_len=5)), npst.array_shapes(min_dims=0, max_side=4)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays=st.dictionaries(st.sampled_from(["x", "y", "labels"]), ARRAYS, min_size=1), compressed=st.booleans())
def test_any_array_comes_back(tmp_path: Path, arrays: dict[str, np.ndarray], compressed: bool) -> None:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays)
    read = files.read_npz(tmp_path / "a.npz", list(arrays))
    for key, array in arrays.items():
        assert read[key].dtype == array.dtype and read[key].shape == array.shape
        assert read[key].tobytes() == array.tobytes()


def test_fortran_order_comes_back(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6).reshape(2, 3))
    np.savez(tmp_path / "a.npz", a=array)
    assert np.array_equal(files.read_npz(tmp_path / "a.npz", ["a"])["a"], array)


def test_a_missing_key_is_named_with_what_there_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(UserError, match=r"a\.npz: has no array x1, x2; it holds images, labels"):
        files.read_npz(tmp_path / "a.npz", ["x1", "labels", "x2"])


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "evil.npz", a=np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="holds Python objects"):
        files.read_npz(tmp_path / "evil.npz", ["a"])
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("a.npy", pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"no whole \.npz"):
        files.read_npz(tmp_path / "raw.npz", ["a"])
    assert not (tmp_path / "owned").exists()


def test_a_truncated_archive_at_any_length(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", a=np.random.default_rng(0).integers(0, 9, 500))
    data = (tmp_path / "whole.npz").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut.npz").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut\.npz: is no whole \.npz archive"):
            files.read_npz(tmp_path / "cut.npz", ["a"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_still_right(tmp_path: Path, data: st.DataObject) -> None:
    array = np.arange(50, dtype=np.int32)
    np.savez(tmp_path / "a.npz", a=array)
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    (tmp_path / "a.npz").write_bytes(raw)
    try:
        read = files.read_npz(tmp_path / "a.npz", ["a"])["a"]
    except UserError:
        return
    assert np.array_equal(read, array)  # the byte was one that does not matter (a date, say)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.npz").write_text("<html>404</html>")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("page.npz", "one.npy"):
        with pytest.raises(UserError, match=r"no whole \.npz"):
            files.read_npz(tmp_path / name, ["a"])
    with pytest.raises(UserError, match="no such file"):
        files.read_npz(tmp_path / "none.npz", ["a"])
    with pytest.raises(UserError, match="a file is where a folder should be"):
        files.read_npz(tmp_path, ["a"])


def test_bombs_are_refused_before_they_take_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros(2**20, dtype=np.uint8))
    with pytest.raises(UserError, match=r"more than the 1\.0 MiB allowed"):
        files.read_npz(tmp_path / "zeros.npz", ["a"], max_bytes=2**20)
    assert files.read_npz(tmp_path / "zeros.npz", ["a"])["a"].sum() == 0  # small: blank images do compress like this
    monkeypatch.setattr(files, "_MUCH", 2**19)
    with pytest.raises(UserError, match="as no real data does"):
        files.read_npz(tmp_path / "zeros.npz", ["a"])


def test_a_header_that_asks_for_more_than_there_is(tmp_path: Path) -> None:
    """NumPy allocates what the header says before it reads: a 200-byte file could ask for a petabyte."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 1000), }".ljust(117) + b"\n"
    payload = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(80)
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("a.npy", payload)
    with pytest.raises(UserError, match="another size than its header says"):
        files.read_npz(tmp_path / "liar.npz", ["a"])


def test_an_encrypted_or_unknown_member(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(UserError, match=r"no whole \.npz"):
        files.read_npz(tmp_path / "a.npz", ["a"])


# ---- downloads

CONTENT = bytes(range(256)) * 4000  # about a megabyte
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges, and misbehaves as its `script` says, one entry a request."""

    script: list[str]
    ranges: list[str | None]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        step = self.script.pop(0) if self.script else "serve"
        if step.isdigit():
            self.send_response(int(step))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and step != "no ranges" else 0
        if begin >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = CONTENT[begin:] if step != "other" else bytes(len(CONTENT) - begin)
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if step == "break" else body)
        if step == "break":
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Server.script, Server.ranges = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/data.bin"
        running.shutdown()
        thread.join()


def test_download_verifies_and_is_not_repeated(server: str, tmp_path: Path) -> None:
    target = tmp_path / "sub" / "data.bin"
    seen: list[tuple[int, int | None]] = []
    md5 = hashlib.md5(CONTENT).hexdigest()
    files.download(server, target, DIGEST.upper(), md5, len(CONTENT), progress=lambda *now: seen.append(now))
    assert target.read_bytes() == CONTENT and names(target.parent) == {"data.bin"}
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    files.download(server, target, sha256=DIGEST)
    assert len(Server.ranges) == 1


def test_download_goes_on_where_the_connection_broke(server: str, tmp_path: Path) -> None:
    Server.script = ["break", "break", "503", "429"]
    files.download(server, tmp_path / "data.bin", sha256=DIGEST)
    half, three_quarters = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    tail = f"bytes={three_quarters}-"
    assert Server.ranges == [None, f"bytes={half}-", tail, tail, tail]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_download_without_a_checksum_starts_anew(server: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"of another file")
    Server.script = ["break"]
    files.download(server, tmp_path / "data.bin")
    assert Server.ranges == [None, None]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("script", [["serve"], ["no ranges"]])
@pytest.mark.parametrize("part", [b"of another file", CONTENT + b"too long", CONTENT, CONTENT[:100]])
def test_download_recovers_from_any_leftover(server: str, tmp_path: Path, part: bytes, script: list[str]) -> None:
    (tmp_path / "data.bin.part").write_bytes(part)
    Server.script = list(script)
    files.download(server, tmp_path / "data.bin", sha256=DIGEST)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_download_refuses_other_content(server: str, tmp_path: Path) -> None:
    Server.script = ["other"]
    with pytest.raises(UserError, match="does not have the expected sha256"):
        files.download(server, tmp_path / "data.bin", sha256=DIGEST)
    with pytest.raises(UserError, match="bytes instead of 17"):
        files.download(server, tmp_path / "data.bin", size=17)
    assert names(tmp_path) == set()
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"data\.bin: .*expected sha256 .*; remove it"):
        files.download(server, tmp_path / "data.bin", sha256=DIGEST)
    assert (tmp_path / "data.bin").read_bytes() == b"mine"


def test_download_gives_up_with_a_reason_and_no_secrets(server: str, tmp_path: Path) -> None:
    Server.script = ["404"]
    with pytest.raises(UserError, match=r"answers 404 .*; check the address"):
        files.download(server, tmp_path / "data.bin")
    Server.script = ["500"] * 9
    with pytest.raises(UserError, match=r"answers 500 .*try again later") as caught:
        files.download(server + "?token=geheim", tmp_path / "data.bin")
    assert "geheim" not in str(caught.value) and len(Server.script) == 4
    with pytest.raises(UserError, match="cannot be reached"):
        files.download("http://name:geheim@127.0.0.1:1/x", tmp_path / "data.bin")
    assert "geheim" not in files._public("http://name:geheim@host/x?key=geheim#geheim")
    with pytest.raises(UserError, match="only http and https"):
        files.download("file:///etc/passwd", tmp_path / "data.bin")
    assert names(tmp_path) == set()


def test_download_checks_the_disk_first(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(UserError, match="the download needs"):
        files.download(server, tmp_path / "data.bin")
    assert names(tmp_path) == set()


def test_importing_files_is_cheap() -> None:
    code = "import sys, shared_core.files, shared_core.archives, shared_core.splits, shared_core.prepared; "
    code += "print([m for m in ('torch', 'matplotlib', 'sklearn', 'huggingface_hub') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
