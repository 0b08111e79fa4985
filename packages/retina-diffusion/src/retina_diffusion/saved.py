"""What a finished training leaves besides checkpoints, in the run's folder ``preprocessing``:

``words.json``      the words that the text encoder knows, in the order of its embeddings
``networks.json``   the VAE and the text model that it was trained with, if it was, and their versions

And what an evaluation leaves, in ``evaluation``:

``segmenter.safetensors``   the network that judges whether images follow their masks
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch

from retina_diffusion import precomputed, prepare, train
from retina_diffusion import segmenter as segmentation
from retina_diffusion.captions import Vocabulary
from retina_diffusion.config import Config
from retina_diffusion.judged import Real
from retina_diffusion.segmenter import Segmenter
from shared_core import config as configuration
from shared_core import files, runs, tensorfile
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir

WORDS, NETWORKS, SEGMENTER = "words.json", "networks.json", "segmenter.safetensors"


def complete(run: RunDir) -> None:
    """Write these files for a run whose training is over."""
    config = configuration.stored(Config, run.path)
    known = train.Material.load(config).vocabulary
    run.preprocessing.mkdir(exist_ok=True)
    files.atomic_write(run.preprocessing / WORDS, json.dumps({"words": known.words, "tokens": known.tokens}) + "\n")
    if found := networks(run):
        files.atomic_write(run.preprocessing / NETWORKS, json.dumps(found, indent=1) + "\n")


def networks(run: RunDir) -> dict[str, dict[str, str]]:
    """The VAE and the text model of a run: setting -> path, sha256 (`frozen.Source.about`).

    Raises UserError where the file is damaged.
    """
    path = run.preprocessing / NETWORKS
    if path.is_file():
        try:
            return {key: {"path": str(one["path"]), "sha256": str(one["sha256"])} for key, one in _read(path).items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise _damaged(path, error) from error
    made_from = run.read_run().get("made_from", {})
    return {key: about for key, about in made_from.items() if key in (precomputed.VAE, precomputed.TEXT)}


def material(run: RunDir, config: Config) -> train.Material:
    """The prepared set and its splits, for judging a run.

    Raises UserError where they are others than the run was trained with: photographs that it learned from could judge
    it.
    """
    runs.require_same_split(run, config.split)
    found = train.Material.load(config)
    runs.require_same_data(run, prepare.folder_of(config.paths, config.data), found.fingerprint)
    return found


def vocabulary(run: RunDir, config: Config) -> Vocabulary:
    """The words of a run: as its training wrote them down, or those of its prepared set.

    Raises UserError where neither is there, or the file is damaged.
    """
    path = run.preprocessing / WORDS
    if not path.is_file():
        return train.Material.load(config).vocabulary
    data = _read(path)
    try:
        return Vocabulary(tuple(map(str, data["words"])), int(data["tokens"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise files.explain(error, path) from error
    except ValueError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is damaged ({error}); train the model again, or pull it again")


def segmenter(run: RunDir, config: Config, data: str, train_: Real, val: Real, device: torch.device) -> Segmenter:
    """The segmenter that judges a run: as an earlier evaluation fitted it, or fitted now on real training photographs.

    Args:
        data: fingerprint of the prepared set that the photographs are of.

    Raises UserError where no training photograph has masks.
    """
    made_of: dict[str, Any] = {"data": data, "split": config.split.model_dump_json()}
    made_of |= {"ratio": config.data.sample_ratio, "steps": config.evaluation.segmenter_steps, "seed": config.seed}
    made_of["size"] = train_.pixels.shape[-1]
    mark, path = json.dumps(made_of, sort_keys=True), run.evaluation / SEGMENTER
    if path.is_file():
        with contextlib.suppress(UserError):
            state, header = tensorfile.read(path)
            if header.get("made_of") == mark:
                return Segmenter.of(state).to(device).eval()
    if not len(train_.masked):
        raise UserError("evaluate: no training photograph has masks, from which a segmenter could learn to judge")
    fitted, judged = train_.take(train_.masked), val.take(val.masked)
    message(f"training the segmenter that judges, on {len(fitted.rows):,} real photographs")
    chosen_on = tuple(x.to(device) for x in (judged.image, judged.mask, judged.known)) if len(judged.rows) else None
    made = segmentation.fit(
        fitted.image.to(device),
        fitted.mask.to(device),
        fitted.known.to(device),
        config.seed,
        steps=config.evaluation.segmenter_steps,
        val=chosen_on,  # type: ignore[arg-type]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_path(path) as temporary:
        tensorfile.write(temporary, dict(made.state_dict()), {"made_of": mark})
    return made.eval()
