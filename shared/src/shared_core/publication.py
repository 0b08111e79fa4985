"""What of a run is published: an allow-list of files, their checksums, and no secret among them.

A publication is a folder::

    README.md            the model card
    model.safetensors    the weights that were evaluated (averaged ones where there are any)
    config.yaml          the configuration, without the paths of the machine it ran on
    trained_on.npz       ids of the sources that training showed, where the package keeps them
    metrics.jsonl  evaluation/*.json  figures/*.png  preprocessing/*
    SHA256SUMS           of all of them but the card, which people may edit on the Hub; `sha256sum -c` reads it

A run with several models has, instead of model.safetensors, a folder ``models/NAME/`` for each with its own
``config.yaml``, ``model.safetensors``, ``metrics.json`` and ``trained_on.npz``. Weights are published there byte for
byte: what combines models may know them by their checksum.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_core import card, files, manifest, records, runs, tensorfile, weights, yamlfile
from shared_core import config as configuration
from shared_core.errors import UserError

_OF_A_MODEL = ("config.yaml", "model.safetensors", "trained_on.npz")
LOADED = (  # not results
    *_OF_A_MODEL,
    *(f"{records.MODELS}/*/{name}" for name in _OF_A_MODEL),
    "preprocessing/*.json",
    "preprocessing/*.safetensors",
)
ALLOWED = (
    "README.md",
    "SHA256SUMS",
    *LOADED,
    f"{records.MODELS}/*/metrics.json",
    "metrics.jsonl",
    "evaluation/*.json",
    "figures/*.png",
)
_WEIGHTS = ("model.safetensors", f"{records.MODELS}/*/model.safetensors")  # a publication has one or the other
_MADE_HERE = {"README.md", "SHA256SUMS", "model.safetensors"}
_OF_THIS_MACHINE = ("paths", "hub")  # sections of a configuration: where things lie, where they are published
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_TEXT = {".md", ".yaml", ".json", ".jsonl"}


@dataclass(frozen=True)
class Publication:
    """What `stage` made."""

    checkpoint: str | None  # name of the checkpoint that the weights come from; None: models of several trainings
    step: int | None
    title: str

    @property
    def tag(self) -> str:
        """The version's name, unless it is given another."""
        return "version" if self.step is None else f"step-{self.step}"


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
            parts together. Of several models, the ones that the run has kept are published.

    Raises:
        UserError: the run has no checkpoint, is of several models that are not all there yet, lacks its config.yaml, or
            one of the files holds a token.
    """
    if not (run.path / "config.yaml").is_file():
        raise UserError(f"{run.path}: has no config.yaml; only a run that `train` made can be published")
    several = run.models.is_dir() or bool(run.read_run().get("several"))
    source = _trained(run, checkpoint) if several else _checkpoint(run, checkpoint)
    step = None if source is None else int(manifest.read(source)["step"])
    for path in _allowed_files(run.path):
        if (name := path.relative_to(run.path).as_posix()) not in _MADE_HERE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(path, folder / name)
    numbers = _numbers_of_each(run, folder) if several or source is None else _write_weights(source, folder)
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card.render(run, repo, source, step, numbers, config), encoding="utf-8")
    _refuse_tokens(folder, token)
    names = sorted(path.relative_to(folder).as_posix() for path in _allowed_files(folder))
    sums = [f"{files.sha256(folder / name)}  {name}\n" for name in names if name != "README.md"]
    (folder / "SHA256SUMS").write_text("".join(sums))
    what = f"{len(numbers)} models" if isinstance(numbers, dict) else f"Step {step}"
    return Publication(None if source is None else source.name, step, f"{what} of {run.path.parent.name}/{run.name}")


def _checkpoint(run: records.RunDir, which: str) -> Path:
    """The checkpoint of a single model that is published."""
    found = runs.checkpoint(run, which)
    if found == run.path and run.path.parent.name == records.MODELS:
        raise UserError(f"{run.path}: is one of several models; push the run that holds them, {run.path.parent.parent}")
    if found == run.path:
        raise UserError(f"{run.path}: came from the Hub and holds no checkpoint; push the run it was published from")
    return found


def _trained(run: records.RunDir, which: str) -> Path | None:
    """The newest checkpoint of a run of several models, if one training made them; UserError unless that is over."""
    if which not in ("best", "latest"):
        raise UserError(f"--checkpoint: {run.path} holds several models, of which the last weights count; leave it out")
    if (run.path / "SHA256SUMS").is_file() and not run.read_run():  # which is written by whatever makes a run here
        raise UserError(f"{run.path}: came from the Hub; push the run it was published from")
    state = run.read_status().get("state", "finished")
    if state != "finished":
        raise UserError(
            f"{run.path}: holds several models, which can be published when all have been trained (its state is "
            f"{state}); repeat the command it began with"
        )
    return next((path for path, about in manifest.newest_first(run.checkpoints) if about), None)


def _numbers_of_each(run: records.RunDir, folder: Path) -> dict[str, int]:
    """Numbers in the weights of each of a run's models, by name; UserError where one is not whole in `folder`."""
    names = sorted(path.name for path in run.models.iterdir() if path.is_dir()) if run.models.is_dir() else []
    if not names:
        raise UserError(
            f"{run.path}: its models are missing; train on with --resume {run.path}, which writes them anew"
        )
    for name in names:
        for needed in ("config.yaml", "model.safetensors"):
            if not (folder / records.MODELS / name / needed).is_file():
                raise UserError(
                    f"{run.models / name}: has no {needed} of its own; restore it, or train the model again"
                )
    return {name: _numbers(tensorfile.read(run.models / name / "model.safetensors")[0]) for name in names}


def _write_weights(checkpoint: Path, folder: Path) -> int:
    """Write the weights of a checkpoint to `folder`; how many numbers they are."""
    found = weights.load_weights(checkpoint)
    tensorfile.write(folder / "model.safetensors", found)  # without a header: equal weights must be equal bytes
    return _numbers(found)


def _numbers(tensors: tensorfile.Tensors) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _copy(path: Path, to: Path) -> None:
    """Copy a file, but of a configuration only what is not this machine's and this person's."""
    if path.name == "config.yaml":
        to.write_text(yamlfile.dump(_portable(yamlfile.read(path).data)), encoding="utf-8")
    elif path.name == "metrics.json":
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            about |= {"config": _portable(about["config"])} if "config" in about else {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: is damaged; restore it, or train the model again") from error
        to.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(path, to)


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    return configuration.portable({key: value for key, value in config.items() if key not in _OF_THIS_MACHINE})


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
    if "config.yaml" not in listed or not any(_matches(name, _WEIGHTS) for name in listed):
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
