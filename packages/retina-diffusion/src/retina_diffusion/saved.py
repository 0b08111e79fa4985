"""What a finished training leaves besides checkpoints, in the run's folder ``preprocessing``:

``words.json``   the words that the text encoder knows, in the order of its embeddings

And what an evaluation leaves, in ``evaluation``:

``segmenter.safetensors``   the network that judges whether images follow their masks
"""

from __future__ import annotations

import contextlib
import json

import torch

from retina_diffusion import segmenter as segmentation
from retina_diffusion import train
from retina_diffusion.captions import Vocabulary
from retina_diffusion.config import Config
from retina_diffusion.judged import Real
from retina_diffusion.segmenter import Segmenter
from shared_core import config as configuration
from shared_core import files, tensorfile
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir

WORDS, SEGMENTER = "words.json", "segmenter.safetensors"


def complete(run: RunDir) -> None:
    """Write these files for a run whose training is over."""
    config = configuration.stored(Config, run.path)
    known = train.Material.load(config).vocabulary
    run.preprocessing.mkdir(exist_ok=True)
    files.atomic_write(run.preprocessing / WORDS, json.dumps({"words": known.words, "tokens": known.tokens}) + "\n")


def vocabulary(run: RunDir, config: Config) -> Vocabulary:
    """The words of a run: as its training wrote them down, or those of its prepared set.

    Raises UserError where neither is there, or the file is damaged.
    """
    path = run.preprocessing / WORDS
    if not path.is_file():
        return train.Material.load(config).vocabulary
    try:
        data = json.loads(path.read_text())
        return Vocabulary(tuple(map(str, data["words"])), int(data["tokens"]))
    except OSError as error:
        raise files.explain(error, path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); train the model again, or pull it again") from error


def segmenter(run: RunDir, config: Config, train_: Real, val: Real, device: torch.device) -> Segmenter:
    """The segmenter that judges a run: as an earlier evaluation fitted it, or fitted now on real training photographs.

    Raises UserError where no training photograph has masks.
    """
    made_of = {"data": train.Material.load(config).fingerprint, "split": config.split.model_dump_json()}
    made_of |= {"ratio": config.data.sample_ratio, "steps": config.evaluation.segmenter_steps, "seed": config.seed}
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
