"""An ensemble: saved base models, and the fitted ways of combining their answers.

A run that stage 4 has worked on holds both: ``models/NAME/`` (`saved`) and ``preprocessing/stacker.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pair_compare_stacking import saved, stackers, train
from pair_compare_stacking.model import PairModel, Prediction
from shared_core import files
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime

STACKER = "stacker.json"


@dataclass(frozen=True)
class Ensemble:
    """Base models by name, the stackers fitted on their answers by method, and the method that was chosen."""

    models: dict[str, PairModel]
    stackers: dict[str, stackers.Stacker]
    chosen: str
    decision: dict[str, Any]  # `stacking.Decision`, for people

    def base(self, x: torch.Tensor, runtime: Runtime, swapped_too: bool = False) -> dict[str, Prediction]:
        """What each model answers to pictures uint8 (N, 28, 56); the rest is as in `train.predict`."""
        return {
            name: train.predict(model.to(runtime.device), x, runtime, swapped_too)
            for name, model in self.models.items()
        }

    def probabilities(self, base: dict[str, Prediction]) -> dict[str, np.ndarray]:
        """P(left larger) as each method combines it: (N,) by method."""
        logit_NM = logits(base)
        return {method: stacker.predict(logit_NM) for method, stacker in self.stackers.items()}

    def combine(self, base: dict[str, Prediction], method: str) -> Prediction:
        """The answer of one method; the digit posteriors are the models' mean."""
        p = torch.from_numpy(self.stackers[method].predict(logits(base)))
        return Prediction(torch.logit(p, eps=1e-12), mean_posterior([part.digit_logits for part in base.values()]))


def logits(base: dict[str, Prediction]) -> np.ndarray:
    """Log-odds of M models: float64 (N, M)."""
    return np.stack([prediction.logit.double().numpy() for prediction in base.values()], axis=1)


def mean_posterior(digit_logits: list[torch.Tensor]) -> torch.Tensor:
    """Logarithm of the mean of several models' digit posteriors; each (N, 2, 10) and the result too."""
    log_p = torch.stack([torch.log_softmax(part.float(), dim=-1) for part in digit_logits])
    return torch.logsumexp(log_p, dim=0) - float(np.log(len(log_p)))


def is_one(run: RunDir) -> bool:
    """Whether stage 4 has worked on a run."""
    return (run.preprocessing / STACKER).is_file()


def load(run: RunDir) -> Ensemble:
    """The ensemble of a run.

    Raises UserError where a base model is missing or does not fit its configuration, or the stacker is damaged or of
    other models.
    """
    path = run.preprocessing / STACKER
    about = _read(path)
    folder = run.path / saved.FOLDER
    models = {name: saved.load(folder / name)[0] for name in about["models"]}
    for name, digest in about["models"].items():
        if files.sha256(folder / name / saved.WEIGHTS) != digest:
            raise UserError(f"{folder / name}: is not the model that {path} was fitted with; fit it again (--stage 4)")
    try:
        fitted = {method: stackers.from_dict(data, list(models)) for method, data in about["stackers"].items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if about["decision"]["method"] not in fitted:
        raise UserError(f"{path}: the chosen method {about['decision']['method']!r:.40} is none of those in it")
    return Ensemble(models, fitted, about["decision"]["method"], about["decision"])


def write(run: RunDir, fitted: dict[str, stackers.Stacker], decision: dict[str, Any]) -> Path:
    """Keep fitted stackers with the run that holds their base models."""
    path, folder = run.preprocessing / STACKER, run.path / saved.FOLDER
    path.parent.mkdir(exist_ok=True)
    models = next(iter(fitted.values())).models
    digests = {name: files.sha256(folder / name / saved.WEIGHTS) for name in models}
    about = {"models": digests, "decision": decision, "stackers": {m: s.to_dict() for m, s in fitted.items()}}
    files.atomic_write(path, json.dumps(about, indent=1) + "\n")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text())
        named = all(isinstance(name, str) and Path(name).name == name for name in about["models"])
        whole = (
            named
            and isinstance(about["models"], dict)
            and isinstance(about["stackers"], dict)
            and isinstance(about["decision"]["method"], str)
        )
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path}: is damaged; fit it again with `pair-compare train --stage 4`")
    checked: dict[str, Any] = about
    return checked
