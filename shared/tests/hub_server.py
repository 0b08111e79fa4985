"""A Hub on loopback: as much of its HTTP API as the real client uses to publish and to fetch.

It stores repositories in memory and answers in the Hub's words (status codes, ``X-Error-Code``, headers). Bytes are
checked where the real one checks them: an LFS object whose SHA-256 is another is refused, and so is a commit that names
an object which was never uploaded. `Hub.fail` makes it break, and `Hub.cut` makes connections break.

Large files go through LFS, or through xet: then `xet` is the folder in which the client's own xet library keeps the
storage, in place of the Hub's storage service; the server sees hashes only.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from loopback import serving

TOKEN = "hf_loopback"
USER = "ada"
Cut = Literal["request", "answer", "last byte", "whole answer", "silence"]
_LFS_SUFFIXES = (".safetensors", ".png", ".parquet")


@dataclass
class Repo:
    """One repository: commits with their files, branches and tags."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    refs: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        found = self.refs.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.resolve(revision) or ""]


@dataclass
class Fault:
    """What the next `times` requests whose line matches `pattern` get instead of an answer."""

    pattern: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: Cut | None = None


class Hub:
    """The state of the server, and what it was asked."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []  # "POST /api/repos/create"
        self.bodies: list[bytes] = []
        self.ranges: list[int] = []  # where the parts of files begin that were asked for
        self.faults: list[Fault] = []
        self.hangs, self.released = threading.Event(), threading.Event()  # a request is waiting; may go on
        self.xet: Path | None = None
        self.xet_hashes: dict[str, str] = {}  # SHA-256 -> xet's hash, told by the test
        self.lock = threading.Lock()
        self.url = ""

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self.repos[kind, name]

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", private: bool = False) -> str:
        """A repository with one commit, as if somebody else had made it; returns the commit."""
        repo = self.repos.setdefault((kind, name), Repo(private))
        return self.commit(repo, files)

    def commit(self, repo: Repo, files: dict[str, bytes], branch: str = "main") -> str:
        text = repr((repo.refs[branch], sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())))
        oid = hashlib.sha1(text.encode()).hexdigest()
        repo.commits[oid] = dict(files)
        repo.refs[branch] = oid
        return oid

    def fail(self, pattern: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer the next requests like ``POST /api/repos/create`` that match with `status`."""
        self.faults.append(Fault(pattern, times, status, headers))

    def cut(self, pattern: str, where: Cut, times: int = 1) -> None:
        """Break the connections of the next matching requests.

        request, answer: closed in the middle of it; last byte: the answer lacks it, and says so nowhere; whole answer:
        what was asked is done, and closed before the answer; silence: nothing, until `released` is set.
        """
        self.faults.append(Fault(pattern, times, cut=where))

    def count(self, pattern: str) -> int:
        """How many requests so far match."""
        return sum(re.search(pattern, request) is not None for request in self.requests)

    def fault(self, request: str) -> Fault | None:
        """The fault that this request meets."""
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """A running Hub; its address is `Hub.url`."""
    hub = Hub()
    with serving(_Handler, hub=hub) as host:
        hub.url = f"http://{host}"
        try:
            yield hub
        finally:
            hub.released.set()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


_ID = r"(?P<id>[\w.\-]+/[\w.\-]+)"
_KIND = r"(?P<kind>model|dataset)s"
_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    (method, re.compile(pattern + "/?"), name)
    for method, pattern, name in [
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", rf"/api/{_KIND}/{_ID}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"/api/{_KIND}/{_ID}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", rf"/api/{_KIND}/{_ID}/tag/(?P<revision>[^/]+)", "tag"),
        ("GET", rf"/api/{_KIND}/{_ID}/refs", "list_refs"),
        ("GET", rf"/api/{_KIND}/{_ID}/tree/(?P<revision>[^/]+)(?P<path>/.*)?", "tree"),
        ("GET", rf"/api/{_KIND}/{_ID}/revision/(?P<revision>[^/]+)", "info"),
        ("GET", rf"/api/{_KIND}/{_ID}", "info"),
        ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
        ("POST", r"/lfs-verify", "lfs_verify"),
        ("GET", rf"/api/{_KIND}/{_ID}/xet-(read|write)-token/(?P<revision>[^/]+)", "xet_token"),
        ("GET", r"/cdn/(?P<oid>[0-9a-f]{64})", "cdn"),
        ("GET", rf"/(?P<prefix>datasets/)?{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ]
]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.hub.fault(f"{self.command} {path}")
        self.cut = fault.cut if fault else None
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length // 2 if self.cut == "request" else length)
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.bodies.append(self.body)
        if self.cut == "request":
            return self._close()
        if self.cut == "silence":
            self.hub.hangs.set()
            self.hub.released.wait()
        if fault and fault.status:
            return self._send(fault.status, {"error": "injected"}, fault.headers)
        for method, pattern, name in _ROUTES:
            if method == self.command.replace("HEAD", "GET") and (match := pattern.fullmatch(path)):
                try:
                    handler: Callable[..., None] = getattr(self, f"_{name}")
                    return handler(**{key: value for key, value in match.groupdict().items() if value is not None})
                except _Refused as refused:
                    headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
                    return self._send(refused.status, {"error": refused.message}, headers if refused.code else {})
        return self._send(404, {"error": f"no route for {self.command} {path}"})

    def _send(self, status: int, data: Any = None, headers: dict[str, str] | None = None) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        if self.cut == "whole answer":
            return self._close()
        body = body[:-1] if self.cut == "last byte" else body
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.cut == "answer" else body)
        if self.cut == "answer":
            self._close()

    def _close(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):  # the client may have been faster
            self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self) -> Any:
        return json.loads(self.body)

    def _writer(self) -> None:
        given = self.headers.get("Authorization")
        if given is None or given != f"Bearer {TOKEN}":
            raise _Refused(401, "", "Invalid username or password.")

    def _repo(self, kind: str, id: str) -> Repo:
        repo = self.hub.repos.get((kind, id))
        signed_in = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None or (repo.private and not signed_in):
            raise _Refused(404 if signed_in else 401, "RepoNotFound", "Repository not found")
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        oid = repo.resolve(revision)
        if oid is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, repo.commits[oid]

    def _whoami(self) -> None:
        self._writer()
        self._send(200, {"type": "user", "name": USER, "orgs": []})

    def _create(self) -> None:
        self._writer()
        asked = self._json()
        owner = asked.get("organization") or USER
        if owner != USER:
            raise _Refused(403, "", f"You don't have the rights to create a model under the namespace {owner!r}")
        key = (asked.get("type", "model"), f"{owner}/{asked['name']}")
        url = {"url": f"{self.hub.url}/{key[1]}", "name": key[1], "id": key[1]}
        if key in self.hub.repos:
            return self._send(409, {**url, "error": "You already created this model repo"})
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repos[key] = Repo(private)
        return self._send(200, url)

    def _validate_yaml(self) -> None:
        content = self._json()["content"]
        ok = re.match(r"---\n.*?\n---\n", content, re.DOTALL) is not None
        self._send(200 if ok else 400, {"errors": [] if ok else [{"message": "no metadata"}], "warnings": []})

    def _preupload(self, kind: str, id: str, revision: str) -> None:
        self._writer()
        _, present = self._files(self._repo(kind, id), revision)
        answers = []
        for file in self._json()["files"]:
            lfs = file["path"].endswith(_LFS_SUFFIXES)
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if file["path"] in present:
                answer["oid"] = _oid(present[file["path"]], lfs)
            answers.append(answer)
        self._send(200, {"files": answers})

    def _lfs_batch(self, id: str) -> None:
        self._writer()
        answers = []
        for wanted in self._json()["objects"]:
            answer = dict(wanted)
            if wanted["oid"] not in self.hub.objects:
                upload = {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs-verify"}}
            answers.append(answer)
        self._send(200, {"transfer": "basic", "objects": answers})

    def _lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content does not match its SHA-256")
        self.hub.objects[oid] = self.body
        self._send(200, b"")

    def _lfs_verify(self) -> None:
        self._writer()
        asked = self._json()
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise _Refused(404, "", "no such object")
        self._send(200, {})

    def _commit(self, kind: str, id: str, revision: str) -> None:
        self._writer()
        repo = self._repo(kind, id)
        _, present = self._files(repo, revision)
        now = dict(present)
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                now[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if self.hub.xet:
                    self.hub.objects.setdefault(value["oid"], b"")  # its content lies where the client put it
                if value["oid"] not in self.hub.objects:
                    raise _Refused(400, "", f"LFS object {value['oid']} was not uploaded")
                now[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del now[value["path"]]
        oid = self.hub.commit(repo, now, revision)
        self._send(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{id}/commit/{oid}"})

    def _tag(self, kind: str, id: str, revision: str) -> None:
        self._writer()
        repo = self._repo(kind, id)
        oid, _ = self._files(repo, revision)
        name = self._json()["tag"]
        if name in repo.tags:
            raise _Refused(409, "", f"Tag {name} already exists")
        repo.tags[name] = oid
        self._send(200, {})

    def _list_refs(self, kind: str, id: str) -> None:
        repo = self._repo(kind, id)
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in repo.refs.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": oid} for n, oid in repo.tags.items()]
        self._send(200, {"branches": branches, "tags": tags, "converts": []})

    def _info(self, kind: str, id: str, revision: str = "main") -> None:
        repo = self._repo(kind, id)
        oid, present = self._files(repo, revision)
        siblings = [{"rfilename": name} for name in present]
        about = {"id": id, "sha": oid, "private": repo.private, "tags": [], "siblings": siblings, "downloads": 0}
        self._send(200, {**about, "likes": 0, "disabled": False, "gated": False})

    def _tree(self, kind: str, id: str, revision: str, path: str = "") -> None:
        _, present = self._files(self._repo(kind, id), revision)
        entries = []
        for name, data in present.items():
            if name.startswith(path.strip("/")):
                entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _oid(data, False)}
                if name.endswith(_LFS_SUFFIXES):
                    entry["lfs"] = {"oid": _oid(data, True), "size": len(data), "pointerSize": 130}
                entries.append(entry)
        self._send(200, entries)

    def _resolve(self, id: str, revision: str, path: str, prefix: str = "") -> None:
        oid, present = self._files(self._repo("dataset" if prefix else "model", id), revision)
        if path not in present:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        data = present[path]
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if path.endswith(_LFS_SUFFIXES):
            digest = _oid(data, True)
            self.hub.objects[digest] = data
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # large files come from another host
            location = {"Location": f"{elsewhere}/cdn/{digest}"}
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            if digest in self.hub.xet_hashes:
                route = f"{self.hub.url}/api/models/{id}/xet-read-token/{oid}"
                linked |= {"X-Xet-Hash": self.hub.xet_hashes[digest], "X-Xet-Refresh-Route": route}
            return self._send(302, b"", {**headers, **location, **linked})
        return self._content(data, {**headers, "ETag": f'"{_oid(data, False)}"'})

    def _xet_token(self, kind: str, id: str, revision: str) -> None:
        self._writer()
        if self.hub.xet is None:
            raise _Refused(404, "", "no xet here")
        until = int(time.time()) + 3600
        url = f"local://{self.hub.xet}"
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "of-the-store", "X-Xet-Token-Expiration": str(until)}
        self._send(200, {"casUrl": url, "accessToken": "of-the-store", "exp": until}, headers)

    def _cdn(self, oid: str) -> None:
        if self.headers.get("Authorization"):
            raise _Refused(400, "", "the token left the Hub")
        self._content(self.hub.objects[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _content(self, data: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return self._send(200, data, headers)
        self.hub.ranges.append(int(wanted[1]))
        start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        content_range = f"bytes {start}-{end}/{len(data)}"
        return self._send(206, data[start : end + 1], {**headers, "Content-Range": content_range})


def _oid(data: bytes, lfs: bool) -> str:
    if lfs:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
