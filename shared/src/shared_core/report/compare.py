"""The report that sets several runs side by side."""

from __future__ import annotations

import math
from pathlib import Path

from shared_core import metrics
from shared_core.intervals import Estimate
from shared_core.report import data
from shared_core.report.data import RunData
from shared_core.report.document import (
    Block,
    Candidate,
    Cell,
    Code,
    Document,
    Headline,
    Notes,
    Pictures,
    Remark,
    Section,
    Table,
)
from shared_core.report.single import curves, environment


def document(runs: list[RunData], headline: str, folder: Path) -> Document:
    """One column per run; differences are from the first one. Overlaid curves go to `folder`."""
    splits = sorted({split for run in runs for split in run.evaluations}, key=lambda s: (s != runs[0].split, s))
    sections = [Section(f"Evaluation: {split}", _evaluation(runs, split)) for split in splits]
    sections += [
        Section("Training", [_facts_table(runs), Pictures(_curves(runs, folder))]),
        Section("Configurations", _configurations(runs)),
        Section(
            "Environment", [_different({run.label: dict(environment(run)) for run in runs}, "the same environment")]
        ),
        Section("Warnings", [_warnings(runs)]),
    ]
    return Document(
        kind=str(runs[0].info.get("package", runs[0].run.path.parent.name)),
        title=f"{len(runs)} runs compared",
        subtitle=f"differences are from {runs[0].label}",
        chips=[],
        headline=_headline(runs, headline),
        sections=sections,
    )


def differences(runs: list[RunData], split: str, metric: str) -> list[tuple[RunData, Estimate, bool]]:
    """Every later run that has the metric: its difference from the first run, and whether the intervals overlap."""
    first, found = runs[0].estimate(split, metric), []
    for run in runs[1:]:
        estimate = run.estimate(split, metric)
        if first is not None and estimate is not None:
            found.append((run, metrics.difference(first, estimate), metrics.overlap(first, estimate)))
    return found


def _headline(runs: list[RunData], wanted: str) -> Headline | None:
    first, split, metric = runs[0], runs[0].split, runs[0].headline(wanted)
    if split is None or metric is None:
        return None
    estimates = {run.label: run.estimate(split, metric) for run in runs}
    candidates = [Candidate(label, estimate, True) for label, estimate in estimates.items() if estimate is not None]
    for name, (baseline, about) in first.baselines(split, metric).items():
        candidates.append(Candidate(name, baseline, False, str(about.get("what", ""))))
    own = estimates[first.label]
    assert own is not None  # `headline` chose a metric of this split
    verdicts = []
    for run in runs[1:]:
        estimate = estimates[run.label]
        if estimate is not None:
            said = data.verdict(metric, estimate, own, first.label)
            verdicts.append(Remark(f"{run.label} is {said.text}", said.tone))
    detail = f"{first.label}, n = {own.n:,}" if own.n else first.label
    return Headline(f"{metric} on {split}", own, detail, candidates, verdicts)


def _evaluation(runs: list[RunData], split: str) -> list[Block]:
    evaluated = [run for run in runs if split in run.evaluations]
    names = dict.fromkeys(name for run in evaluated for name in run.evaluations[split]["metrics"])
    rows = []
    for metric in names:
        small = (Remark("smaller is better", "muted"),) if data.smaller_is_better(metric) else ()
        gaps = {run.label: (gap, overlap) for run, gap, overlap in differences(runs, split, metric)}
        rows.append([Cell(metric, small), *(_cell(run, split, metric, gaps.get(run.label)) for run in runs)])
    blocks: list[Block] = [Table(["metric", *(run.label for run in runs)], rows)]
    sizes = {run.evaluations[split].get("n") for run in evaluated}
    if len(sizes) > 1:
        blocks.append(Notes([Remark("n differs between the runs: they were not evaluated on the same samples", "bad")]))
    return blocks


def _cell(run: RunData, split: str, metric: str, gap: tuple[Estimate, bool] | None) -> Cell:
    """Value, interval, difference from the first run and whether the intervals overlap."""
    estimate = run.estimate(split, metric)
    if estimate is None:
        return Cell("")
    small = [Remark(data.interval(estimate), "muted")] if data.interval(estimate) else []
    if gap is not None and not math.isnan(gap[0].value):
        difference, overlap = gap
        small.append(Remark(data.signed(difference)))
        if not math.isnan(difference.low):
            better = (difference.value < 0) == data.smaller_is_better(metric)
            tone = data.GOOD if better else data.BAD
            small.append(Remark("intervals overlap", "muted") if overlap else Remark("no overlap", tone))
    return Cell(data.number(estimate), tuple(small))


def _facts_table(runs: list[RunData]) -> Table:
    facts = {run.label: dict(run.summary()) for run in runs}
    names = dict.fromkeys(name for pairs in facts.values() for name in pairs)
    rows = [[Cell(name), *(Cell(pairs.get(name, "")) for pairs in facts.values())] for name in names]
    return Table(["", *facts], rows)


def _configurations(runs: list[RunData]) -> list[Block]:
    values = {run.label: {key: data.text(value) for key, value in run.config.items()} for run in runs}
    commands = "\n".join(f"{run.label}: {run.command}" for run in runs if run.command)
    return [_different(values, "the same configuration"), *([Code(commands)] if commands else [])]


def _different(values: dict[str, dict[str, str]], same: str) -> Block:
    """The keys whose values differ between runs."""
    keys = dict.fromkeys(key for found in values.values() for key in found)
    rows = [
        [Cell(key), *(Cell(found.get(key, "")) for found in values.values())]
        for key in keys
        if key not in ("name", "started") and len({found.get(key) for found in values.values()}) > 1
    ]
    return Table(["", *values], rows) if rows else Notes([Remark(f"all runs have {same}", "muted")])


def _curves(runs: list[RunData], folder: Path) -> list[Path]:
    return curves({run.label: run.rows for run in runs}, folder)


def _warnings(runs: list[RunData]) -> Notes:
    found = [Remark(f"{run.label}: {line}", "bad") for run in runs for line in run.warnings]
    return Notes(found or [Remark("none", "muted")])
