"""What of a run is published: an allow-list of files, their checksums, and no secret among them.

A publication is a folder::

    README.md            the model card
    model.safetensors    the weights that were evaluated (averaged ones where there are any)
    config.yaml          the configuration, without the paths of the machine it ran on
    metrics.jsonl  evaluation/*.json  figures/*.png  preprocessing/*
    SHA256SUMS           of all of them but the card, which people may edit on the Hub; `sha256sum -c` reads it
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared_core import card, files, manifest, records, runs, tensorfile, weights, yamlfile
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
LOADED = ("config.yaml", "model.safetensors", "preprocessing/*.json", "preprocessing/*.safetensors")  # not results
_MADE_HERE = {"README.md", "SHA256SUMS", "model.safetensors", "config.yaml"}
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_TEXT = {".md", ".yaml", ".json", ".jsonl"}


@dataclass(frozen=True)
class Publication:
    """What `stage` made."""

    checkpoint: str  # name of the checkpoint that the weights come from
    step: int
    title: str


@contextlib.contextmanager
def scratch(run: Path) -> Iterator[Path]:
    """An empty folder in the run's for what is about to be published: on its disk, since /tmp may be memory.

    What a killed push left there is removed; only one process at a time may do this (`hubnotes.alone`).
    """
    folder = run / ".publication"
    files.remove(folder)
    try:
        folder.mkdir()
    except OSError as error:
        raise files.explain(error, folder) from error
    try:
        yield folder
    finally:
        files.remove(folder)


def stage(
    run: records.RunDir, folder: Path, repo: str, token: str | None = None, checkpoint: str = "best"
) -> Publication:
    """Fill `folder` with what is published of a run.

    Args:
        checkpoint: best (else the newest), latest, or the folder of one. Of a sharded one, this process alone puts the
            parts together.

    Raises:
        UserError: the run has no checkpoint, lacks its config.yaml, or one of the files holds a token.
    """
    if not (run.path / "config.yaml").is_file():
        raise UserError(f"{run.path}: has no config.yaml; only a run that `train` made can be published")
    source = runs.checkpoint(run, checkpoint)
    if source == run.path:
        raise UserError(f"{run.path}: came from the Hub and holds no checkpoint; push the run it was published from")
    step = int(manifest.read(source)["step"])
    found = weights.load_weights(source)
    tensorfile.write(folder / "model.safetensors", found)  # without a header: equal weights must be equal bytes
    for path in _allowed_files(run.path):
        if (name := path.relative_to(run.path).as_posix()) not in _MADE_HERE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
    config = _portable(run.path / "config.yaml")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    text = card.render(run, repo, source, step, sum(tensor.numel() for tensor in found.values()), config)
    (folder / "README.md").write_text(text, encoding="utf-8")
    _refuse_tokens(folder, token)
    names = sorted(path.relative_to(folder).as_posix() for path in _allowed_files(folder))
    sums = [f"{files.sha256(folder / name)}  {name}\n" for name in names if name != "README.md"]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return Publication(source.name, step, f"Step {step} of {run.path.parent.name}/{run.name}")


def _portable(path: Path) -> str:
    """A configuration without what is this machine's and this person's: where things lie, where they are published."""
    data = yamlfile.read(path).data
    return yamlfile.dump({key: value for key, value in data.items() if key not in ("paths", "hub")})


def copy_verified(source: Path, folder: Path, what: str) -> None:
    """Copy a downloaded publication's files into `folder`, each compared with its checksum.

    Raises:
        UserError: it is no publication, or a file is missing or damaged.
    """
    listed = verify(source, what)
    for name in [*listed, "SHA256SUMS", "README.md"]:
        if (source / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def verify(folder: Path, what: str, patterns: tuple[str, ...] = ALLOWED) -> list[str]:
    """Names of the files of a publication that `patterns` mean, each compared with its checksum.

    Raises:
        UserError: it is no publication, or a file is missing or damaged.
    """
    try:
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{what}: holds no SHA256SUMS, so `push` did not make it; check the name") from None
    listed = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    if not {"model.safetensors", "config.yaml"} <= set(listed):
        raise UserError(f"{what}: SHA256SUMS lists no model.safetensors or no config.yaml; push the run again")
    for name in listed:
        if not _matches(name, ALLOWED):
            raise UserError(f"{what}: SHA256SUMS lists {name!r}, which no publication has; push the run again")
    wanted = [name for name in listed if _matches(name, patterns)]
    for name in wanted:
        if not (folder / name).is_file() or files.sha256(folder / name) != listed[name]:
            raise UserError(f"{what}: {name} is missing or differs from its checksum; pull again, or push again")
    return wanted


def _allowed_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and _matches(path.relative_to(folder).as_posix(), ALLOWED)
    ]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns means this very file: a ``*`` stands for one name, not for a path."""
    parts = name.split("/")
    return ".." not in parts and any(
        len(parts) == pattern.count("/") + 1 and fnmatch.fnmatchcase(name, pattern) for pattern in patterns
    )


def _refuse_tokens(folder: Path, token: str | None) -> None:
    secrets = [value for value in (token, os.environ.get("HF_TOKEN"), os.environ.get("WANDB_API_KEY")) if value]
    for path in folder.rglob("*"):
        if path.suffix in _TEXT:
            text = path.read_text(encoding="utf-8", errors="replace")
            if _TOKEN.search(text) or any(secret in text for secret in secrets):
                name = path.relative_to(folder)
                raise UserError(f"{name}: holds an access token; revoke it, remove it from the run and push again")
