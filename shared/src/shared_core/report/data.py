"""What a report is made from: the files of a run, and how numbers are worded."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from shared_core import metrics, progress, records, yamlfile
from shared_core.intervals import Estimate
from shared_core.report.document import Remark, Tone

# Words in a metric's name that make a smaller value the better one.
SMALLER_IS_BETTER = frozenset(
    {"loss", "error", "ece", "brier", "nll", "mae", "mse", "rmse", "mape", "smape", "fid", "kid", "lpips", "perplexity"}
    | {"wer", "cer", "risk", "aurc", "cost", "observed"}
)

GOOD: Tone = "good"
BAD: Tone = "bad"


@dataclass(frozen=True)
class RunData:
    """Everything a run has written, in memory."""

    run: records.RunDir
    label: str  # the run's name, longer where several runs of one report share it
    yaml: str
    config: dict[str, Any]  # dotted key -> value
    models: dict[str, list[str]]  # of a configuration with several models: what each sets for itself
    info: dict[str, Any]
    status: dict[str, Any]
    rows: list[dict[str, Any]]
    evaluations: dict[str, dict[str, Any]]
    warnings: list[str]

    @property
    def has_models(self) -> bool:
        """Whether the run keeps several models, each by itself."""
        return self.run.models.is_dir()

    @property
    def split(self) -> str | None:
        """The split whose number is the headline: a test split if there is one, never the training data by choice."""

        def rank(split: str) -> tuple[bool, bool, str]:
            return split.startswith("train"), not split.startswith("test"), split

        return min(self.evaluations, key=rank, default=None)

    def headline(self, wanted: str) -> str | None:
        """The headline metric: `wanted` if the evaluation has it, else the evaluation's own."""
        if self.split is None:
            return None
        evaluation = self.evaluations[self.split]
        return wanted if wanted in evaluation["metrics"] else str(evaluation["headline"])

    def estimate(self, split: str, metric: str) -> Estimate | None:
        found = self.evaluations.get(split, {}).get("metrics", {}).get(metric)
        return None if found is None else Estimate.from_dict(found)

    def baselines(self, split: str, metric: str) -> dict[str, tuple[Estimate, Mapping[str, Any]]]:
        """Baselines that state this metric, each with everything else it says of itself."""
        found = self.evaluations.get(split, {}).get("baselines", {})
        return {name: (Estimate.from_dict(about[metric]), about) for name, about in found.items() if metric in about}

    @property
    def command(self) -> str:
        """What was typed, as far as the run remembers."""
        argv = [str(word) for word in self.info.get("argv", [])]
        if argv and argv[0].endswith("__main__.py"):
            argv[:1] = ["python", "-m", Path(argv[0]).parent.name]
        elif argv:
            argv[0] = Path(argv[0]).name
        return shlex.join(argv)

    def summary(self) -> list[tuple[str, str]]:
        """How training went, in a few facts."""
        last = self.rows[-1] if self.rows else {}
        facts = [("state", str(self.status.get("state", "unknown")))]
        if not self.rows and self.has_models:
            return [*facts, ("training", "none of its own: its models come from other runs")]
        facts.append(("optimizer steps", f"{last.get('step', 0):,}"))
        if "epoch" in last:
            facts.append(("epochs", f"{last['epoch']:g}"))
        if "elapsed_s" in last:
            facts.append(("training time", progress.duration(last["elapsed_s"])))
        for key, name, form in (
            ("train/samples_per_s", "samples per second", "{:,.0f}"),
            ("train/data_wait", "waiting for data", "{:.1%}"),
            ("train/gpu_memory_gb", "GPU memory (GB)", "{:.1f}"),
        ):
            if values := [row[key] for row in self.rows if key in row]:
                facts.append((name, form.format(median(values))))
        skipped = max((row.get("train/skipped_steps", 0) for row in self.rows), default=0)
        resumed = len(self.info.get("earlier_starts", []))
        return [*facts, ("resumed", f"{resumed} time{'s' * (resumed != 1)}"), ("skipped steps", f"{skipped:,.0f}")]


def load(path: Path, label: str | None = None) -> RunData:
    """Read a run's folder. Raises `UserError` for a folder that is none, or damaged files."""
    run = records.find(path)
    config = run.path / "config.yaml"
    yaml = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    settings = yamlfile.read(config).data if yaml else {}
    return RunData(
        run=run,
        label=label or run.name,
        yaml=yaml,
        config=flatten(settings),
        models=_own_settings(settings.get("models")),
        info=run.read_run(),
        status=run.read_status(),
        rows=records.read_metrics(run.path),
        evaluations=records.read_evaluations(run),
        warnings=[_readable_time(line) for line in records.read_warnings(run)],
    )


def _own_settings(models: Any) -> dict[str, list[str]]:
    """What each of several models sets for itself, as ``model.architecture fpn``."""
    if not isinstance(models, Mapping):
        return {}
    return {
        str(name): [f"{key} {text(value)}" for key, value in flatten(own).items() if value not in (None, {}, [])]
        for name, own in models.items()
        if isinstance(own, Mapping)
    }


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}} -> {"a.b": 1}`"""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def text(value: Any) -> str:
    """A configuration or table value, for reading."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return str(value)


def number(estimate: Estimate) -> str:
    """The value, to as many digits as its interval supports."""
    return _form(estimate, estimate.value)


def interval(estimate: Estimate) -> str:
    """`[low, high]`, or nothing where there is no interval."""
    if math.isnan(estimate.low):
        return ""
    return f"[{_form(estimate, estimate.low)}, {_form(estimate, estimate.high)}]"


def signed(estimate: Estimate) -> str:
    """A difference with its sign and interval."""
    shown = number(estimate)
    if not shown.strip("-0."):  # rounds to zero, which has no sign
        shown = shown.lstrip("-")
    elif estimate.value > 0:
        shown = f"+{shown}"
    return f"{shown} {interval(estimate)}".strip()


def smaller_is_better(metric: str) -> bool:
    """Whether a metric of this name is an error."""
    return not SMALLER_IS_BETTER.isdisjoint(metric.lower().replace("/", "_").replace("-", "_").split("_"))


def verdict(metric: str, estimate: Estimate, baseline: Estimate, name: str, paired: Estimate | None = None) -> Remark:
    """One sentence: better, worse, or not to be told apart; without intervals, only the difference.

    `paired` is the difference, run less baseline, where it was measured sample by sample.
    """
    gap = metrics.difference(baseline, estimate) if paired is None else paired
    if math.isnan(gap.value):
        return Remark(f"cannot be compared with {name}", "muted")
    if math.isnan(gap.low):
        return Remark(f"{signed(gap)} against “{name}” (no interval, so no verdict)", "muted")
    if gap.low <= 0 <= gap.high:
        return Remark(f"not significantly different from “{name}”: {signed(gap)}", "muted")
    better = (gap.value < 0) == smaller_is_better(metric)
    size = gap if gap.value > 0 else replace(gap, value=-gap.value, low=-gap.high, high=-gap.low)
    word, tone = ("better", GOOD) if better else ("worse", BAD)
    return Remark(f"{word} than “{name}” by {number(size)} {interval(size)}", tone)


def _readable_time(line: str) -> str:
    """`2026-01-31T09:26:03+00:00 text -> 2026-01-31 09:26 text`"""
    time, _, rest = line.partition(" ")
    return f"{time[:16].replace('T', ' ')} {rest}"


def _form(estimate: Estimate, value: float) -> str:
    if math.isnan(value):
        return "undefined"
    half = (estimate.high - estimate.low) / 2
    if not half > 0:  # no interval, or one without width
        return f"{value:.4g}"
    decimals = min(6, max(0, math.ceil(-math.log10(half)) + 1))
    return f"{value:.{decimals}f}"
