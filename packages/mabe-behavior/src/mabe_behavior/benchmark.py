"""The verb `benchmark`: train on a published benchmark's training part, judge on its test, beside published numbers.

CalMS21, task 1 (Sun et al. 2021): F1 and average precision of attack, investigation and mount over all test frames
together, the unweighted mean of the three; "other" does not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mabe_behavior import measures, saved, subject
from mabe_behavior.actions import Behaviour
from mabe_behavior.config import BenchmarkOptions, Config
from mabe_behavior.formats import calms21
from mabe_behavior.postprocessing import apply_all
from mabe_behavior.streams import Stream
from mabe_behavior.subject import Trained
from shared_core import records, report, runs
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.runtime import Runtime

# mean F1, mean average precision, source
PUBLISHED = {
    "baseline of the data set, 1D convolutions on poses": (0.793, 0.856, "Sun et al. 2021"),
    "TREBA, the same with task programming": (0.829, 0.889, "Sun et al. 2021, CVPR"),
    "vassi, boosted trees with smoothing and thresholds": (0.840, None, "Nuehrenberg et al. 2025, eLife"),
}
TABLE = "CalMS21, task 1: mean over attack, investigation and mount"


def run(app: App, config: Config, options: BenchmarkOptions) -> int:
    """Prepare, train and judge."""
    if config.data.source != options.which:
        raise UserError(f"benchmark {options.which}: data.source is {config.data.source}; use --config {options.which}")
    for verb in ("prepare", "train"):
        if status := app.call(verb, config):
            return status
    runtime = Runtime.start(config.runtime, config.seed)
    run_ = runs.trained(app, config)
    who = subject.of_run(run_, config, "best", runtime.device)
    material = saved.material(run_, config, who.about)
    recordings = (material.recording(number) for number in material.parts.test.tolist())
    about = judged(who, who.together(who.asked(recordings, judged=True)))
    records.write_evaluation(run_, "calms21", about)
    for row in about["tables"][TABLE]:
        print("  ".join(f"{value}" for value in row.values()))
    print(report.write([run_.path], headline=app.headline))
    return 0


def judged(who: Trained, said: list[Stream]) -> dict[str, Any]:
    """The benchmark's numbers, in the form of `records.write_evaluation`."""
    y_T, p_TC, said_T = frames(who, said)
    raw, found = measures.calms21(y_T, p_TC), measures.calms21(y_T, p_TC, said_T)
    rows: list[dict[str, Any]] = [
        {"model": name, "mean F1": f"{f1:.3f}", "mAP": "" if ap is None else f"{ap:.3f}", "source": source}
        for name, (f1, ap, source) in PUBLISHED.items()
    ]
    for name, one in (("this run, likeliest class", raw), ("this run, tuned rules", found)):
        rows.append(
            {"model": name, "mean F1": f"{one.mean_f1:.3f}", "mAP": f"{one.mean_ap:.3f}", "source": who.run.name}
        )
    each = [
        {"action": name, "F1": f"{found.f1[name]:.3f}", "average precision": f"{found.ap[name]:.3f}"}
        for name in calms21.ACTIONS
    ]
    return {
        "checkpoint": who.name,
        "n": len(y_T),
        "headline": "mean_f1",
        "metrics": {"mean_f1": {"value": found.mean_f1}, "mean_ap": {"value": found.mean_ap}},
        "tables": {TABLE: rows, "Each action": each},
        "notes": ["the published numbers are as printed by their authors, not measured here"],
    }


def frames(who: Trained, said: list[Stream]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes (T,), scores (T, 4) and said classes (T,) of all test frames, one video after the other."""
    assert who.decided is not None
    vocabulary = calms21.VOCABULARY
    y, p, found = [], [], []
    pair = Behaviour(*calms21.ANIMALS, "")[:2]
    for one in said:
        if (one.agent, one.target) != pair:
            continue
        y_T = np.full(len(one), vocabulary[calms21.OTHER])
        said_T, p_TC = y_T.copy(), np.zeros((len(one), len(vocabulary)))
        for k, action in enumerate(one.actions):
            y_T[one.truth_TK[:, k] == 1] = vocabulary[action]
            p_TC[:, vocabulary[action]] = one.p_TK[:, k]
        p_TC[:, vocabulary[calms21.OTHER]] = 1 - one.p_TK.max(axis=1)
        for *_, action, start, stop in apply_all([one], who.decided.rules[saved.BLEND]).rows:
            said_T[start:stop] = vocabulary[action]
        y, p, found = [*y, y_T], [*p, p_TC], [*found, said_T]
    return np.concatenate(y), np.concatenate(p), np.concatenate(found)
