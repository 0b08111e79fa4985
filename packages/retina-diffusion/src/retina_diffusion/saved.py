"""What a finished training leaves besides checkpoints, in the run's folder ``preprocessing``:

``words.json``   the words that the text encoder knows, in the order of its embeddings
"""

from __future__ import annotations

import json

from retina_diffusion import train
from retina_diffusion.captions import Vocabulary
from retina_diffusion.config import Config
from shared_core import config as configuration
from shared_core import files
from shared_core.errors import UserError
from shared_core.records import RunDir

WORDS = "words.json"


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
