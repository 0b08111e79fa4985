"""A teacher: a trained model or ensemble, frozen, whose answers another model learns from (`distill.teacher`).

It is no part of what learns: no weights, checkpoints or averages hold anything of it.

Shapes: B pairs, M models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from pair_compare_stacking import calibration, ensemble, prepare, saved, subject
from pair_compare_stacking.config import Config
from pair_compare_stacking.model import PairModel, Prediction
from pair_compare_stacking.pairs_config import Data
from pair_compare_stacking.stackers import Blend, Logistic, Stacker
from pair_compare_stacking.subject import Several, Single
from shared_core import files, records, runs
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.schema import did_you_mean

KEY = "distill.teacher"
CONFIG = "config.yaml"
MADE_ALIKE = ("source", "severity", "weight_diff1")  # settings of the data in which teacher and student should agree
SURE = float(np.log((1 - calibration.FLOOR) / calibration.FLOOR))  # log-odds that no ensemble exceeds

Combine = Callable[[torch.Tensor], torch.Tensor]  # log-odds (M, B) -> (B,)


@dataclass(frozen=True)
class Teacher:
    """Answers pairs float (B, 2, 28, 28) in 0..1, on the run's device and in its precision, without gradients.

    Its log-odds are those of the ensemble's chosen method; its digit posteriors are the mean of the models'.
    """

    name: str  # as the setting says
    who: Single | Several
    data: Data  # that it was trained on
    models: tuple[PairModel, ...]
    combine: Combine
    runtime: Runtime

    @torch.no_grad()
    def __call__(self, x_B2HW: torch.Tensor) -> Prediction:
        with self.runtime.accelerator.autocast():
            answers = [model(x_B2HW) for model in self.models]
        logit_B = self.combine(torch.stack([answer.logit.float() for answer in answers]))
        return Prediction(logit_B, ensemble.mean_posterior([answer.digit_logits for answer in answers]))

    def describe(self) -> dict[str, str]:
        """Where it lies, and a digest of all that its answers depend on."""
        path, method = self.who.run.path, self.who.name
        found = hashlib.sha256(method.encode())
        for file in _files(self.who):
            found.update(f"{file.relative_to(path)} {files.sha256(file)}\n".encode())
        return {"path": str(path.resolve()), "answers": method, "sha256": found.hexdigest()}

    def warnings(self, data: Data, sources: np.ndarray | None) -> list[str]:
        """What its student should know.

        Args:
            data: that the student learns from.
            sources: ids of the source images that val.npz is made of, where they are known.
        """
        told = f"{KEY}: {self.name}"
        other = [
            f"data.{key} {getattr(self.data, key)} instead of {getattr(data, key)}"
            for key in MADE_ALIKE
            if getattr(self.data, key) != getattr(data, key)
        ]
        found = [f"{told}: was trained on other pairs: {', '.join(other)}"] if other else []
        if isinstance(self.who, Several) and not ensemble.is_one(self.who.run):
            found.append(f"{told}: answers with {self.who.ensemble.decision['sentence']}")
        if not self.who.sources:
            return [*found, f"{told}: does not say which source images it was trained on; val.npz may show the same"]
        if sources is not None and self.data.source == data.source:  # ids of another source say nothing
            share = float(np.isin(sources, list(self.who.sources)).mean())
            if share:
                found.append(
                    f"{told}: was trained on source images of val.npz ({share:.1%} of its halves), so that accuracy on "
                    "val flatters its student"
                )
        return found


def load(config: Config, runtime: Runtime) -> Teacher:
    """The teacher that the configuration names: a run, one of its saved models (RUN/models/NAME), or a checkpoint.

    Raises UserError where there is none, its training has not ended, or its files do not fit each other.
    """
    who, data = _find(config)
    if isinstance(who, Several):
        models, combine = (
            tuple(who.ensemble.models.values()),
            combination(who.ensemble.stackers[who.method], runtime.device),
        )
    else:
        models, combine = (who.model,), _as_it_is
    frozen = tuple(model.to(runtime.device).eval().requires_grad_(False) for model in models)
    return Teacher(str(config.distill.teacher), who, data, frozen, combine, runtime)


def sources(config: Config) -> set[str]:
    """Ids of the source images that the teacher's training showed; empty where they are unknown.

    What the teacher learned from them, it hands on."""
    return set(_find(config)[0].sources)


def combination(stacker: Stacker, device: torch.device) -> Combine:
    """What a stacker makes of log-odds (M, B) on a device, as log-odds (B,).

    A weighted sum is computed there, without waiting for the device; trees are left to NumPy.
    """
    temperature_M1 = torch.tensor(stacker.temperatures, device=device).unsqueeze(1)
    match stacker:
        case Logistic():
            return partial(_weighted, torch.tensor(stacker.coefficients, device=device).unsqueeze(1) / temperature_M1)
        case Blend():
            return partial(_blended, temperature_M1, torch.tensor(stacker.weights, device=device).unsqueeze(1).log())
    return partial(_by_numpy, stacker)


def _weighted(weight_M1: torch.Tensor, logit_MB: torch.Tensor) -> torch.Tensor:
    return (weight_M1 * logit_MB).sum(dim=0).clamp(-SURE, SURE)


def _blended(temperature_M1: torch.Tensor, log_weight_M1: torch.Tensor, logit_MB: torch.Tensor) -> torch.Tensor:
    """By logarithms: in float32, nothing is left of 1 - p where p is nearly 1."""
    larger_MB = logit_MB / temperature_M1
    log_p_B, log_q_B = (
        torch.logsumexp(log_weight_M1 + functional.logsigmoid(z_MB), dim=0) for z_MB in (larger_MB, -larger_MB)
    )
    return (log_p_B - log_q_B).clamp(-SURE, SURE)


def _by_numpy(stacker: Stacker, logit_MB: torch.Tensor) -> torch.Tensor:
    p = torch.from_numpy(stacker.predict(logit_MB.double().T.cpu().numpy()))
    return torch.logit(p, eps=calibration.FLOOR).to(logit_MB)


def _as_it_is(logit_MB: torch.Tensor) -> torch.Tensor:
    return logit_MB[0]


def _find(config: Config) -> tuple[Single | Several, Data]:
    """Who the teacher is, and the data that it was trained on."""
    path = _path(config)
    try:
        run = records.find(path)
        stored = saved.read_config(run.path)
        if subject.is_of_several(run) and not (run.path / saved.FOLDER).is_dir():
            raise UserError(f"{run.path}: has no saved models yet; wait until its training has finished")
        return subject.of_run(run, stored, checkpoint="best" if path == run.path else str(path)), stored.data
    except UserError as error:
        raise UserError(f"{KEY}: {'; '.join(str(error).splitlines())}") from error


def _path(config: Config) -> Path:
    """The folder that the setting means: in the folder of runs, or else anywhere."""
    name, home = str(config.distill.teacher), config.paths.runs / prepare.PACKAGE
    if (path := runs.meant(home, name)) is not None:
        return path
    known = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    there = f"there are {', '.join(known)}" if known else f"there is none in {home}; train it first"
    raise UserError(f"{KEY}: {name}: no such run{did_you_mean(name, known)}; {there}")


def _files(who: Single | Several) -> list[Path]:
    """The files that the answers depend on."""
    path = who.run.path
    if isinstance(who, Several):
        whole = [path / saved.FOLDER / name / file for name in who.ensemble.models for file in (saved.WEIGHTS, CONFIG)]
        return [*whole, who.run.preprocessing / ensemble.STACKER] if ensemble.is_one(who.run) else whole
    checkpoint = RunDir(path).checkpoints / who.name
    weights = checkpoint / "manifest.json" if checkpoint.is_dir() else path / saved.WEIGHTS  # it has all the digests
    return [weights, path / CONFIG]
