"""What an image must and must not say about itself: its user, its labels, and no secret anywhere in it."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from typing import IO, Any, cast

from shared_core.errors import UserError
from shared_core.images.engine import PACKAGE, Image

LABELS = (
    *(f"org.opencontainers.image.{name}" for name in ("title", "description", "version", "revision", "source")),
    "org.opencontainers.image.licenses",
    PACKAGE,
)
_MAY_BE_EMPTY = "org.opencontainers.image.source"  # a checkout without an address has none
# tokens of the Hub, of GitHub and of AWS have a prefix of their own, and so can be found among anything
_PREFIXES = (b"hf_", b"ghp_", b"ghs_", b"AKIA")
_TOKEN = re.compile(rb"(?<![A-Za-z0-9_])(?:hf_[A-Za-z0-9]{30,60}|gh[ps]_[A-Za-z0-9]{36}|AKIA[A-Z0-9]{16})")
_PASSWORD_IN_ADDRESS = re.compile(r"\w://[^/\s:@\"']+:[^/\s@\"']+@")
_SECRET_NAME = re.compile(r"(?i)\b([A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|API_?KEY)[A-Z0-9_]*)=(\S+)")
_BLOCK = 2**20
_OVERLAP = 256  # longer than any token: one that two blocks share is found in the second
# SHA-256 of tokens that everybody may know: that of the Hub's test instance, which `transformers` carries
_PUBLISHED = {"5de261506c0ff857b7c1af7059f842fb0a36d1ca2e4895da542c5eb726f2c802"}
_DISTINCT = 10  # different characters in a real token at least; in `hf_xxxxxxxx` of a manual there are few


def runs_as_root(image: Image) -> bool:
    """Whether the image's processes would be root's; a name that is not a number may be anybody, and counts as such."""
    user = image.user.partition(":")[0]
    return not user.isdigit() or int(user) == 0


def missing_labels(image: Image) -> list[str]:
    """Labels that are not there, or empty where they may not be."""
    labels = image.labels
    return [name for name in LABELS if name not in labels or not (labels[name].strip() or name == _MAY_BE_EMPTY)]


def secrets_in_settings(image: Image) -> list[str]:
    """Where in the environment, the labels and the history something stands that looks like a secret.

    Variables that only name a file (``HF_TOKEN_PATH``) are fine, as are empty ones.
    """
    places = [f"{name}={value}" for name, value in image.environment.items()]
    found = [f"environment: {hit}" for place in places for hit in _secrets(place)]
    found += [f"label {name}: {hit}" for name, value in image.labels.items() for hit in _secrets(value)]
    return found + [f"history: {hit}" for line in image.history for hit in _secrets(line)]


def secrets_in_layers(archive: Iterable[bytes], secret: bytes | None = None) -> list[str]:
    """Files of an image, in any layer and also deleted ones, with a secret in them; and the beginning of it.

    Args:
        archive: what `docker save` writes (`Engine.archive`).
        secret: at most 256 bytes; None: anything that looks like a token.

    Raises:
        UserError: a layer is compressed in a way that cannot be read here.
    """
    with tarfile.open(fileobj=_Stream(archive), mode="r|", bufsize=_BLOCK) as outer:  # type: ignore[call-overload]
        return [hit for name, file in _files(outer) for hit in _search_blob(name, file, secret)]


def cuda_version(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """CUDA's (major, minor) that an image is made for, from the variables of NVIDIA's base images, or None."""
    said = environment.get("CUDA_VERSION", "") or environment.get("NVIDIA_REQUIRE_CUDA", "").removeprefix("cuda>=")
    match = re.match(r"(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else None


def gigabytes(size: float) -> str:
    """`2599180303 -> "2.6 GB"`."""
    return f"{size / 1e9:.1f} GB"


def _secrets(text: str) -> list[str]:
    found = [_shortened(token) for token in sorted(_tokens(text.encode()))]
    if _PASSWORD_IN_ADDRESS.search(text):
        found.append("an address with a password in it")
    for name, value in _SECRET_NAME.findall(text):
        if not name.upper().endswith(("_PATH", "_FILE", "_DIR")) and value.strip("\"'"):
            found.append(f"a value for {name}")
    return found


def _search_blob(name: str, file: IO[bytes], secret: bytes | None) -> list[str]:
    """A layer (a tar, packed or not) file by file; anything else (the image's own JSON) as it is."""
    buffered = io.BufferedReader(cast(io.RawIOBase, file), _BLOCK)
    start = buffered.peek(512)[:512]
    if start[:4] == b"\x28\xb5\x2f\xfd":
        raise UserError(f"{name}: this layer is packed with zstd, which cannot be searched; build it without")
    if start[:2] != b"\x1f\x8b" and start[257:262] != b"ustar":
        return _search(name, buffered, secret)
    with tarfile.open(fileobj=buffered, mode="r|*", bufsize=_BLOCK) as layer:
        return [hit for inner, content in _files(layer) for hit in _search(f"/{inner}", content, secret)]


def _search(name: str, file: IO[bytes], secret: bytes | None) -> list[str]:
    found: set[str] = set()  # shortened: the piece of a token that ends a block is the same as the whole
    rest = b""
    while block := file.read(_BLOCK):
        block = rest + block
        if secret is None:
            found.update(map(_shortened, _tokens(block)))
        elif secret in block:
            found.add(_shortened(secret))
        rest = block[-_OVERLAP:]
    return [f"{name}: {match}" for match in sorted(found)]


def _tokens(block: bytes) -> set[bytes]:
    if not any(prefix in block for prefix in _PREFIXES):  # far quicker than the pattern, and nearly always enough
        return set()
    return {
        token
        for token in _TOKEN.findall(block)
        if len(set(token)) >= _DISTINCT and hashlib.sha256(token).hexdigest() not in _PUBLISHED
    }


def _files(archive: tarfile.TarFile) -> Iterable[tuple[str, IO[bytes]]]:
    for member in archive:
        if member.isreg():
            content = archive.extractfile(member)
            assert content is not None  # only None for what is no regular file
            yield member.name, content


def _shortened(secret: bytes) -> str:
    """Enough to recognise it, too little to use it."""
    return f"{secret[:6].decode(errors='replace')}..."


class _Stream:
    """Blocks of bytes as a file that can be read once."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks, self._rest = iter(blocks), b""

    def read(self, size: int) -> bytes:
        parts: list[Any] = [self._rest]
        length = len(self._rest)
        while length < size and (block := next(self._blocks, b"")):
            parts.append(block)
            length += len(block)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]
