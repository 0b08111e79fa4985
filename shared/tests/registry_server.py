"""A container registry on loopback: as much of the OCI distribution API as an engine uses to push.

Blobs are kept in memory and compared with their digest; a manifest that names a blob which was never sent is refused.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback import serving


class Registry:
    """The state of the server."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}  # "team/name:tag"
        self.uploads: dict[str, bytes] = {}
        self.password: str | None = None  # "user:password" that it wants
        self.faults: list[int] = []  # statuses that the next uploads are answered with
        self.host = ""


@contextlib.contextmanager
def serve() -> Iterator[Registry]:
    """A running registry; its address is `Registry.host`."""
    registry = Registry()
    with serving(_Handler, registry=registry) as registry.host:
        yield registry


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        body, registry, path = self._body(), self.registry, urlsplit(self.path).path
        wanted = registry.password and "Basic " + base64.b64encode(registry.password.encode()).decode()
        if wanted and self.headers.get("Authorization") != wanted:
            return self._send(
                401, {"WWW-Authenticate": 'Basic realm="loopback"'}, _error("UNAUTHORIZED", "who are you")
            )
        if path == "/v2/":
            return self._send(200)
        if found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path):
            blob = registry.blobs.get(found[2])
            return self._send(404) if blob is None else self._send(200, {}, blob)
        if found := re.fullmatch(r"/v2/(.+)/blobs/uploads/", path):
            upload = f"{found[1]}/{len(registry.uploads)}"
            registry.uploads[upload] = b""
            return self._send(202, {"Location": f"/v2/{found[1]}/blobs/uploads/{len(registry.uploads) - 1}"})
        if found := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\d+)", path):
            return self._upload(f"{found[1]}/{found[2]}", body)
        if found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            return self._manifest(f"{found[1]}:{found[2]}", body)
        return self._send(404)

    do_HEAD = do_POST = do_PATCH = do_PUT = do_GET

    def _upload(self, upload: str, body: bytes) -> None:
        if self.registry.faults:
            return self._send(self.registry.faults.pop(0))
        self.registry.uploads[upload] += body
        if self.command == "PATCH":
            size = len(self.registry.uploads[upload])
            return self._send(202, {"Location": self.path, "Range": f"0-{size - 1}"})
        [digest] = parse_qs(urlsplit(self.path).query)["digest"]
        data = self.registry.uploads.pop(upload)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            return self._send(400, {}, _error("DIGEST_INVALID", "other bytes than announced"))
        self.registry.blobs[digest] = data
        return self._send(201, {"Docker-Content-Digest": digest})

    def _manifest(self, name: str, body: bytes) -> None:
        if self.command != "PUT":
            return self._send(404)
        manifest = json.loads(body)
        if not {layer["digest"] for layer in [manifest["config"], *manifest["layers"]]} <= set(self.registry.blobs):
            return self._send(400, {}, _error("MANIFEST_BLOB_UNKNOWN", "a layer was not sent"))
        self.registry.manifests[name] = body
        return self._send(201, {"Docker-Content-Digest": f"sha256:{hashlib.sha256(body).hexdigest()}"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        known = {"Content-Length": str(len(body)), "Docker-Distribution-API-Version": "registry/2.0"}
        for name, value in {**known, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
