"""What of a run is published: an allow-list of files, their checksums, and no secret among them.

A publication is a folder::

    README.md            the model card
    model.safetensors    the weights that were evaluated (averaged ones where there are any)
    config.yaml  metrics.jsonl  evaluation/*.json  figures/*.png  preprocessing/*
    SHA256SUMS           of all of them but the card, which people may edit on the Hub; `sha256sum -c` reads it
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from pathlib import Path

from shared_core import card, checkpoint, files, manifest, records, runs, tensorfile
from shared_core.errors import UserError

ALLOWED = (
    "README.md",
    "SHA256SUMS",
    "model.safetensors",
    "config.yaml",
    "metrics.jsonl",
    "evaluation/*.json",
    "figures/*.png",
    "preprocessing/*.json",
    "preprocessing/*.safetensors",
)
_MADE_HERE = {"README.md", "SHA256SUMS", "model.safetensors"}
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_TEXT = {".md", ".yaml", ".json", ".jsonl"}


def stage(run: records.RunDir, folder: Path, repo: str, token: str | None = None) -> int:
    """Fill `folder` with what is published of a run's best checkpoint (else its newest), and return its step.

    Raises:
        UserError: the run has no checkpoint, lacks its config.yaml, or one of the files holds a token.
    """
    if not (run.path / "config.yaml").is_file():
        raise UserError(f"{run.path}: has no config.yaml; only a run that `train` made can be published")
    source = runs.checkpoint(run, "best")
    if source == run.path:
        raise UserError(f"{run.path}: came from the Hub and holds no checkpoint; push the run it was published from")
    step = int(manifest.read(source)["step"])
    weights = checkpoint.load_weights(source)
    tensorfile.write(folder / "model.safetensors", weights)  # without a header: equal weights must be equal bytes
    for path in _allowed_files(run.path):
        if (name := path.relative_to(run.path).as_posix()) not in _MADE_HERE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
    parameters = sum(tensor.numel() for tensor in weights.values())
    (folder / "README.md").write_text(card.render(run, repo, source.name, step, parameters), encoding="utf-8")
    _refuse_tokens(folder, token)
    names = sorted(path.relative_to(folder).as_posix() for path in _allowed_files(folder))
    sums = [f"{files.sha256(folder / name)}  {name}\n" for name in names if name != "README.md"]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return step


def copy_verified(source: Path, folder: Path, what: str) -> None:
    """Copy a downloaded publication's files into `folder`, each compared with its checksum.

    Raises:
        UserError: it is no publication, or a file is missing or damaged.
    """
    try:
        lines = (source / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{what}: holds no SHA256SUMS, so `push` did not make it; check the name") from None
    listed = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    if not {"model.safetensors", "config.yaml"} <= set(listed):
        raise UserError(f"{what}: SHA256SUMS lists no model.safetensors or no config.yaml; push the run again")
    for name, expected in listed.items():
        if not _is_allowed(name):
            raise UserError(f"{what}: SHA256SUMS lists {name!r}, which no publication has; push the run again")
        if not (source / name).is_file() or files.sha256(source / name) != expected:
            raise UserError(f"{what}: {name} is missing or differs from its checksum; pull again, or push again")
    for name in [*listed, "SHA256SUMS", "README.md"]:
        if (source / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def _allowed_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and _is_allowed(path.relative_to(folder).as_posix())
    ]


def _is_allowed(name: str) -> bool:
    """Whether one of the patterns means this very file: a ``*`` stands for one name, not for a path."""
    parts = name.split("/")
    return ".." not in parts and any(
        len(parts) == pattern.count("/") + 1 and fnmatch.fnmatchcase(name, pattern) for pattern in ALLOWED
    )


def _refuse_tokens(folder: Path, token: str | None) -> None:
    secrets = [value for value in (token, os.environ.get("HF_TOKEN"), os.environ.get("WANDB_API_KEY")) if value]
    for path in folder.rglob("*"):
        if path.suffix in _TEXT:
            text = path.read_text(encoding="utf-8", errors="replace")
            if _TOKEN.search(text) or any(secret in text for secret in secrets):
                name = path.relative_to(folder)
                raise UserError(f"{name}: holds an access token; revoke it, remove it from the run and push again")
