"""The report of one run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shared_core import figures
from shared_core.errors import UserError
from shared_core.intervals import Estimate
from shared_core.report import data, samples
from shared_core.report.data import RunData
from shared_core.report.document import (
    Block,
    Candidate,
    Cell,
    Code,
    Document,
    Facts,
    Headline,
    Notes,
    Pictures,
    Remark,
    Section,
    Table,
)

IN_BRIEF = (
    "seed", "training.epochs", "training.steps", "training.batch_size", "training.accumulation", "training.ema_decay",
    "optimizer.name", "optimizer.lr", "optimizer.weight_decay", "scheduler.name", "scheduler.warmup_steps",
    "runtime.precision",
)  # fmt: skip
MOST_FACTS = 24
STEEP = 20  # times the smallest loss, from which on the largest one's axis is logarithmic
STATE_TONES: dict[str, Any] = {"finished": "good", "failed": "bad"}


def document(run: RunData, headline: str, folder: Path) -> Document:
    """Everything worth knowing about a run; figures that are drawn for it go to `folder`."""
    state = str(run.status.get("state", "unknown"))
    chips = [Remark(state, STATE_TONES.get(state, "muted"))]
    if run.warnings:
        chips.append(Remark(f"{len(run.warnings)} warning{'s' * (len(run.warnings) > 1)}", "bad"))
    sections = [
        Section("What was run", _what_was_run(run)),
        Section("Training", [Facts(run.summary()), Pictures(curves({run.label: run.rows}, folder))]),
        *_samples(run, folder),
        *(Section(f"Evaluation: {split}", _evaluation(run, split)) for split in _splits(run)),
        Section("Environment", [Facts(environment(run))]),
        Section("Warnings", [_warnings(run)]),
    ]
    started = str(run.info.get("started", ""))[:16].replace("T", " ")
    return Document(
        kind=str(run.info.get("package", run.run.path.parent.name)),
        title=run.label,
        subtitle=f"started {started}" if started else "",
        chips=chips,
        headline=_headline(run, headline),
        sections=sections,
    )


def curves(runs: dict[str, list[dict[str, Any]]], folder: Path) -> list[Path]:
    """Learning curves: one panel per evaluated metric with its training counterpart, then how training went.

    Metrics that differ in a number at their end (``macro_f1_3``, ``macro_f1_6``) share one panel; where several runs
    are compared, the last of them stands for all."""
    present = {key for rows in runs.values() for row in rows for key in row}
    names = sorted(
        (key.removeprefix("val/") for key in present if key.startswith("val/")), key=lambda n: (n != "loss", n)
    )
    if "loss" not in names and "train/loss" in present:
        names.insert(0, "loss")
    families = _families(names)
    panels = [
        (name.replace("_", " "), [f"train/{name}", f"val/{name}"])
        for name in names
        if not any(name in family for family in families.values())
    ]
    for stem, family in families.items():
        shown = family if len(runs) == 1 else family[-1:]
        panels.append((f"{stem.replace('_', ' ')} each", [f"val/{name}" for name in shown]))
    panels += [
        (title, [key])
        for title, key in (("learning rate", "train/lr"), ("gradient norm", "train/grad_norm"))
        if key in present
    ]
    paths = []
    for title, keys in panels:
        path = folder / f"curve-{title.replace(' ', '-').replace('/', '-')}.png"
        dotted = len(runs) > 1 and len(keys) > 1 and present.issuperset(keys)
        caption = "Dotted: on training batches." if dotted else ""
        single = next(iter(runs.values())) if len(runs) == 1 else runs
        log = "loss" in title and _is_steep(runs.values(), keys)
        paths.append(figures.curves(single, path, keys, title=title[:1].upper() + title[1:], caption=caption, log=log))
    return paths


def _is_steep(runs: Iterable[list[dict[str, Any]]], keys: Sequence[str]) -> bool:
    """Whether a linear axis would show the first steps and nothing of what comes later."""
    values = [float(row[key]) for rows in runs for row in rows for key in keys if row.get(key) is not None]
    values = [value for value in values if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) > STEEP * min(values)


def _families(names: Sequence[str]) -> dict[str, list[str]]:
    """Names that differ in a number at their end only, at least two of them, by what they have in common."""
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if match := re.fullmatch(r"(.+)_(\d+)", name):
            found.setdefault(match[1], {})[int(match[2])] = name
    return {stem: [family[number] for number in sorted(family)] for stem, family in found.items() if len(family) > 1}


def environment(run: RunData) -> list[tuple[str, str]]:
    """Versions, machine, commit: run.json without the command and the earlier starts."""
    left_out = {"argv", "earlier_starts", "package", "started"}
    info = {key: value for key, value in run.info.items() if key not in left_out and value not in ({}, [], None)}
    return [(key.replace("versions.", ""), data.text(value)) for key, value in data.flatten(info).items()]


def metrics_table(run: RunData, split: str) -> Table:
    """Metrics of a split: the run and each baseline with their intervals, then n and method."""
    evaluation = run.evaluations[split]
    baselines = evaluation.get("baselines", {})
    rows = []
    for metric, found in evaluation["metrics"].items():
        estimate = Estimate.from_dict(found)
        rows.append(
            [
                Cell(metric, (Remark("smaller is better", "muted"),) if data.smaller_is_better(metric) else ()),
                _estimate_cell(estimate),
                *(_value_cell(about.get(metric, "")) for about in baselines.values()),
                Cell(f"{estimate.n:,}" if estimate.n else "", (Remark(estimate.method, "muted"),)),
            ]
        )
    return Table(["metric", run.label, *baselines, "n"], rows)


def _headline(run: RunData, wanted: str) -> Headline | None:
    split, metric = run.split, run.headline(wanted)
    if split is None or metric is None:
        return None
    evaluation, estimate = run.evaluations[split], run.estimate(split, metric)
    assert estimate is not None  # `headline` chose a metric of this split
    candidates, verdicts = [Candidate(run.label, estimate, True)], []
    for name, (baseline, about) in run.baselines(split, metric).items():
        candidates.append(Candidate(name, baseline, False, str(about.get("what", ""))))
        paired = about.get("differences", {}).get(metric)
        verdicts.append(
            data.verdict(metric, estimate, baseline, name, None if paired is None else Estimate.from_dict(paired))
        )
    if not verdicts:
        verdicts.append(Remark("no baseline to compare with: the number alone says little", "muted"))
    several = run.has_models
    seeds = int(evaluation.get("seeds", 1))
    detail = [
        f"n = {estimate.n:,}" if estimate.n else "",
        estimate.method,
        f"{'answer' if several else 'checkpoint'}: {evaluation['checkpoint']}" if "checkpoint" in evaluation else "",
        "" if several else "one seed" if seeds == 1 else f"{seeds} seeds",
    ]
    return Headline(f"{metric} on {split}", estimate, " · ".join(filter(None, detail)), candidates, verdicts)


def _what_was_run(run: RunData) -> list[Block]:
    keys = [key for key in IN_BRIEF if run.config.get(key) is not None]
    for section in ("model.", "data."):
        keys += [key for key, value in run.config.items() if key.startswith(section) and value is not None]
    blocks: list[Block] = [Facts([(key, data.text(run.config[key])) for key in keys[:MOST_FACTS]])] if keys else []
    if run.models:
        rows = [[Cell(name), Cell(", ".join(own))] for name, own in run.models.items()]
        blocks.append(Table(["model", "its own settings"], rows, "Several models, each the above but for this"))
    if run.command:
        blocks.append(Code(run.command))
    if run.yaml:
        blocks.append(Code(run.yaml, summary="Whole configuration"))
    return blocks or [Notes([Remark("no configuration was recorded", "muted")])]


def _splits(run: RunData) -> list[str]:
    """The headline's split first."""
    return sorted(run.evaluations, key=lambda split: (split != run.split, split))


def _evaluation(run: RunData, split: str) -> list[Block]:
    evaluation = run.evaluations[split]
    blocks: list[Block] = [metrics_table(run, split)]
    what = [
        Remark(f"{name}: {about['what']}")
        for name, about in evaluation.get("baselines", {}).items()
        if about.get("what")
    ]
    what += [Remark(str(note)) for note in evaluation.get("notes", [])]
    paths, missing = _readable([run.run.path / str(name) for name in evaluation.get("figures", [])])
    if what or missing:
        blocks.append(Notes([*what, *missing]))
    blocks += [_plain_table(title, rows) for title, rows in evaluation.get("tables", {}).items()]
    if paths:
        blocks.append(Pictures(paths))
    return blocks


def _samples(run: RunData, folder: Path) -> list[Section]:
    """What the model drew while it trained, if it draws."""
    samples.forget(folder)
    good, damaged = [], []
    for path in samples.chosen(run.run.path / "samples", int(run.rows[-1]["step"]) if run.rows else 0):
        try:
            good.append(samples.reduced(path, folder))
        except UserError as error:
            damaged.append(Remark(str(error), "bad"))
    blocks: list[Block] = [Notes(damaged)] if damaged else []
    if good:
        blocks.append(Pictures(good))
    return [Section("Samples by step", blocks)] if blocks else []


def _readable(paths: list[Path]) -> tuple[list[Path], list[Remark]]:
    """The figures that are there; a missing one is a remark, not the end of the report."""
    good, missing = [], []
    for path in paths:
        try:
            figures.describe(path)
            good.append(path)
        except UserError as error:
            missing.append(Remark(str(error), "bad"))
    return good, missing


def _plain_table(title: str, rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Table(columns, [[_value_cell(row.get(column, "")) for column in columns] for row in rows], title)


def _value_cell(value: Any) -> Cell:
    if isinstance(value, dict) and "value" in value:
        return _estimate_cell(Estimate.from_dict(value))
    return Cell(data.text(value))


def _estimate_cell(estimate: Estimate) -> Cell:
    interval = data.interval(estimate)
    return Cell(data.number(estimate), (Remark(interval, "muted"),) if interval else ())


def _warnings(run: RunData) -> Notes:
    if not run.warnings:
        return Notes([Remark("none", "muted")])
    return Notes([Remark(line, "bad") for line in run.warnings])
