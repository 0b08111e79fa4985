"""What is found in an image's settings and layers, and what is not mistaken for a secret. Without an engine."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_core.errors import UserError
from shared_core.images import contents
from shared_core.images.engine import PACKAGE, Image

TOKEN = "hf_" + "aZ3kQ9rT7bN1xY5wE8vU2mP6cD4fG0hJ"


def image(**changed: object) -> Image:
    usual: dict[str, object] = {
        "reference": "x:latest", "id": "sha256:0", "user": "1000:1000", "labels": dict.fromkeys(contents.LABELS, "1"),
        "environment": {"PATH": "/bin", "HF_TOKEN_PATH": "/run/secrets/hf_token", "HF_TOKEN": ""},
        "history": ("RUN --mount=type=secret,id=hf_token pip install x", "ARG PIP_INDEX_URL"), "size": 1,
    }  # fmt: skip
    return Image(**(usual | changed))  # type: ignore[arg-type]


def packed(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def blocks(data: bytes, size: int = 65536) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def saved(*layers: bytes, **other: bytes) -> Iterator[bytes]:
    """As `docker save` writes it: layers and JSON, one beside the other."""
    return blocks(packed({f"blobs/sha256/{n}": layer for n, layer in enumerate(layers)} | other))


def test_a_decent_image_passes() -> None:
    assert not contents.runs_as_root(image())
    assert contents.missing_labels(image()) == []
    assert contents.secrets_in_settings(image()) == []


@pytest.mark.parametrize("user", ["", "0", "root", "0:1000", "trainer"])
def test_user_has_to_be_a_number_other_than_0(user: str) -> None:
    assert contents.runs_as_root(image(user=user))


def test_names_each_missing_label_and_no_empty_source() -> None:
    source, version = "org.opencontainers.image.source", "org.opencontainers.image.version"
    labels = dict.fromkeys(contents.LABELS, "1") | {source: "", version: " "}
    del labels[PACKAGE]
    assert contents.missing_labels(image(labels=labels)) == [version, PACKAGE]
    assert contents.missing_labels(image(labels={})) == list(contents.LABELS)


@pytest.mark.parametrize(
    "changed",
    [
        {"environment": {"ANYTHING": TOKEN}},
        {"environment": {"HF_TOKEN": "short"}},
        {"environment": {"MY_API_KEY": "1"}},
        {"labels": {"note": f"use {TOKEN}"}},
        {"history": (f"RUN |1 X={TOKEN} make",)},
        {"history": ("RUN |1 HF_TOKEN=abc make",)},
        {"history": ("RUN pip install https://me:word@index.example.org/x",)},
    ],
)
def test_finds_secrets_in_settings(changed: dict[str, object]) -> None:
    found = contents.secrets_in_settings(image(**changed))
    assert len(found) == 1
    assert TOKEN not in found[0]


def test_finds_a_token_in_every_kind_of_layer() -> None:
    layer = packed({"srv/x/.netrc": f"token {TOKEN}".encode()})
    assert contents.secrets_in_layers(saved(layer)) == ["/srv/x/.netrc: hf_aZ3..."]
    assert contents.secrets_in_layers(saved(packed({"clean": b""}), gzip.compress(layer))) == [
        "/srv/x/.netrc: hf_aZ3..."
    ]
    assert contents.secrets_in_layers(saved(manifest=f'{{"Env": "{TOKEN}"}}'.encode())) == ["manifest: hf_aZ3..."]


@given(st.integers(-60, 60))
def test_finds_a_token_that_two_blocks_share(shift: int) -> None:
    text = b"." * (2**20 + shift) + TOKEN.encode() + b"." * 100
    assert contents.secrets_in_layers(saved(packed({"big": text}))) == ["/big: hf_aZ3..."]


def test_a_placeholder_of_a_manual_is_no_token() -> None:
    text = b"hf_" + b"x" * 34 + b" bhf_" + TOKEN[3:].encode() + b" hf_hub_download_of_a_model_in_the_cache"
    assert contents.secrets_in_layers(saved(packed({"manual": text}))) == []


def test_a_library_may_carry_the_token_of_a_public_test_instance() -> None:
    """transformers does, for the Hub's; the real ones beside it are found all the same."""
    import transformers

    text = (Path(transformers.__file__).parent / "testing_utils.py").read_bytes()
    assert re.search(rb"hf_[A-Za-z0-9]{30}", text)
    assert contents.secrets_in_layers(saved(packed({"testing_utils.py": text}))) == []
    text += TOKEN.encode()
    assert contents.secrets_in_layers(saved(packed({"testing_utils.py": text}))) == ["/testing_utils.py: hf_aZ3..."]


def test_finds_a_certain_secret_and_only_that() -> None:
    layer = packed({"a": b"xx my own secret xx", "b": f"{TOKEN}".encode()})
    assert contents.secrets_in_layers(saved(layer), b"my own secret") == ["/a: my own..."]
    assert contents.secrets_in_layers(saved(layer), b"another") == []


def test_refuses_what_it_cannot_read() -> None:
    with pytest.raises(UserError, match="zstd"):
        contents.secrets_in_layers(saved(b"\x28\xb5\x2f\xfd" + b"0" * 600))


@pytest.mark.parametrize(
    ("environment", "cuda"),
    [
        ({"CUDA_VERSION": "13.0.3"}, (13, 0)),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=12.8 brand=unknown,driver>=470"}, (12, 8)),
        ({"CUDA_VERSION": "12.9.1", "NVIDIA_REQUIRE_CUDA": "cuda>=12.9"}, (12, 9)),
        ({}, None),
    ],
)
def test_cuda_version_of_an_image(environment: dict[str, str], cuda: tuple[int, int] | None) -> None:
    assert contents.cuda_version(environment) == cuda
