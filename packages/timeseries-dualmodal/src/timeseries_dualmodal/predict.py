"""The verb `predict`: a class for each series of a file, as early as the stopping rule allows, or "not yet".

The file has a row per series: ``id``, ``answer`` (a class, or `not yet`), ``steps`` (after how many it was given),
``probability`` of the answer then (of the most probable class so far where there is none), and ``p_CLASS`` with what is
known.

Shapes: N series, L lengths, K classes.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared_core import files
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.runtime import Runtime
from timeseries_dualmodal import readers, saved, stopping, subject, weighing
from timeseries_dualmodal.config import Answers, Config, PredictOptions
from timeseries_dualmodal.series import SeriesSet
from timeseries_dualmodal.stopping import NOT_YET
from timeseries_dualmodal.subject import Trained

UNDECIDED = "not yet"


def run(app: App, config: Config, options: PredictOptions) -> int:
    """Write answers for the series of a file, or of the test split."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("predict: runs in one process; start it without a launcher")
    who = subject.find(app, config, options, runtime.device)
    series, name = _series(who, options.input)
    known = min(options.steps or series.steps, series.steps)
    out = options.out or who.run.predictions / f"{name}.csv"
    answered = write(out, who, series, known, options.answers)
    message(f"{out}: {answered:,} of {len(series):,} series answered, the others {UNDECIDED}, from {known} steps")
    return 0


def _series(who: Trained, path: Path | None) -> tuple[SeriesSet, str]:
    """The series that are asked about, and what to call them."""
    if path is None:
        return saved.material(who.run, who.config, who.about).part("test"), "test"
    data = who.config.data.model_copy(update={"source": str(path)})
    return readers.read(data, labelled=False, like=who.about), path.stem


def write(out: Path, who: Trained, series: SeriesSet, known: int, answers: Answers) -> int:
    """Write the answers that `known` steps allow; how many series have one. Raises UserError for an unfinished run."""
    if who.decided is None:
        raise UserError(f"{who.run.path}: has no stopping rule yet; finish its training, then ask again")
    lengths = tuple(length for length in who.decided.lengths if length <= known)
    if not lengths:
        raise UserError(
            f"--steps: {known} is fewer than the {who.decided.lengths[0]} steps after which the model is first asked"
        )
    p_NLK = who.decided.calibrated(who.probabilities(series.x, lengths))
    stop_N, answer_N = stopping.decide(who.decided.rule, p_NLK)
    at_N = np.where(stop_N == NOT_YET, len(lengths) - 1, stop_N)
    if answers == "macro_f1":
        wanted_NL = weighing.answers(p_NLK, who.decided.weights_LK[: len(lengths)])
        answer_N = np.where(stop_N == NOT_YET, NOT_YET, wanted_NL[np.arange(len(at_N)), at_N])
    files.atomic_write(
        out, _table(series.ids, who.about.classes, lengths, p_NLK[np.arange(len(at_N)), at_N], at_N, answer_N)
    )
    return int((answer_N != NOT_YET).sum())


def _table(
    ids: NDArray[np.str_],
    classes: tuple[str, ...],
    lengths: tuple[int, ...],
    p_NK: NDArray[np.float64],
    at_N: NDArray[np.int64],
    answer_N: NDArray[np.int64],
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "answer", "steps", "probability", *(f"p_{name}" for name in classes)])
    for name, at, answer, p_K in zip(ids, at_N, answer_N, p_NK, strict=True):
        said, p = (UNDECIDED, p_K.max()) if answer == NOT_YET else (classes[answer], p_K[answer])
        writer.writerow([name, said, lengths[at], f"{p:.4f}", *(f"{p:.4f}" for p in p_K)])
    return text.getvalue()
