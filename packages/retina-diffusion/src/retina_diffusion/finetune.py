"""The verb `finetune`: training that begins with Lumina's weights."""

from __future__ import annotations

from retina_diffusion.config import Config
from shared_core import verbs
from shared_core.cli import App


def run(app: App, config: Config, options: None) -> int:
    """Train from ``model.pretrained.source``, by default the published weights."""
    model = config.model
    if model.pretrained.source is None:
        began = model.pretrained.model_copy(update={"source": "lumina"})
        config = config.model_copy(update={"model": model.model_copy(update={"pretrained": began})})
    return verbs.train(app, config, options)
