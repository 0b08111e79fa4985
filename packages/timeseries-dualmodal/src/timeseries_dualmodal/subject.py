"""Who answers: a trained model with what it was fitted with.

Shapes: N series, L lengths, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import runs, weights
from shared_core.cli import App
from shared_core.records import RunDir
from shared_core.runs import RunOptions
from timeseries_dualmodal import answers, decision, saved, train
from timeseries_dualmodal.boosting import Boosted
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.decision import Decided
from timeseries_dualmodal.description import Description
from timeseries_dualmodal.members import Members
from timeseries_dualmodal.sight import Eyes

NETWORKS, TREES = "networks", "trees"


@dataclass(frozen=True)
class Trained:
    """A model that has been trained, ready to answer."""

    run: RunDir
    name: str  # of the checkpoint
    config: Config
    about: Description
    model: Members
    eyes: Eyes | None
    device: torch.device
    decided: Decided | None  # what is made of probabilities; None where training has not finished
    trees: Boosted | None  # beside the networks

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths after which it is asked: those of its stopping rule, where it has one."""
        return self.config.evaluation.asked(len(self.about.times)) if self.decided is None else self.decided.lengths

    def probabilities(self, x_NVT: NDArray[np.float32], lengths: tuple[int, ...]) -> NDArray[np.float64]:
        """(N, L, K) after each of some lengths, as the model gives them. A season that has only begun may be short."""
        return self.together(self.parts(x_NVT, lengths))

    def together(self, parts: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """What the parts say as one."""
        if self.decided is None or TREES not in parts:
            return parts[NETWORKS]
        return decision.mixed(parts[NETWORKS], parts[TREES], self.decided.share)

    def parts(self, x_NVT: NDArray[np.float32], lengths: tuple[int, ...]) -> dict[str, NDArray[np.float64]]:
        """What `NETWORKS` and, where there are some, `TREES` say alone."""
        found = {NETWORKS: self._of_networks(x_NVT, lengths)}
        return found if self.trees is None else {**found, TREES: self.trees.proba(x_NVT, lengths)}

    def _of_networks(self, x_NVT: NDArray[np.float32], lengths: tuple[int, ...]) -> NDArray[np.float64]:
        missing = len(self.about.times) - x_NVT.shape[2]  # filled up: another shape would round another way
        x_NVT = np.pad(x_NVT, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
        logits_NLK = answers.logits(self.model, torch.from_numpy(x_NVT), lengths, self.eyes, self.device)
        return logits_NLK.double().softmax(dim=-1).numpy()


def find(app: App, config: Config, options: RunOptions, device: torch.device) -> Trained:
    """The model that the options mean.

    Raises UserError where there is no such run or checkpoint, or its weights are of another configuration.
    """
    return of_run(runs.locate(app, config, options), config, options.checkpoint, device)


def of_run(run: RunDir, config: Config, checkpoint: str, device: torch.device, fitted: bool = True) -> Trained:
    """The model that a run of this configuration has come to; raises as `find`.

    `fitted`: with what was fitted after training, if it was.
    """
    path = runs.checkpoint(run, checkpoint)
    about = saved.describe(run, config)
    model = train.build_model(config, about)
    weights.load_strictly(model, weights.load_weights(path), path)
    model = model.to(device).eval()
    eyes = train.eyes_of(config, model, about) if config.model.sees else None
    decided = saved.decided(run) if fitted else None
    trees = None if decided is None else saved.trees(run, about, decided)
    return Trained(run, path.name, config, about, model, eyes, device, decided, trees)
