"""The verb `export`: as the others', but adapters are folded into the weights, for whoever loads a NextDiT without."""

from __future__ import annotations

from retina_diffusion import lora, subject
from retina_diffusion.config import Config
from shared_core import export, runs
from shared_core.cli import App
from shared_core.verbs import ExportOptions


def run(app: App, config: Config, options: ExportOptions) -> None:
    """Write a run's weights in another form and print where."""
    found = runs.locate(app, config, options)
    path = runs.checkpoint(found, options.checkpoint)
    if options.format != "state_dict" or config.model.pretrained.tune != "lora":
        # the weights that a fine-tuning began with may be gone by now
        training = config.training.model_copy(update={"resume": str(path)})
        export.run(app, config.model_copy(update={"training": training}), options)
        return
    network = subject.network(found, config, path)
    lora.merge(network.dit)
    out = options.out or found.path / f"{found.name}{export.SUFFIXES[options.format]}"
    print(export.state_dict(found, path, out, dict(network.state_dict())))
