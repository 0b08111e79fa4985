"""The model card: what a published model is, how well it does, and how to use it.

The measured metrics are in it twice: as text with their confidence intervals and baselines, and as the structured
`EvalResult` entries that the Hub shows.
"""

from __future__ import annotations

import math
from typing import Any

from shared_core import records
from shared_core.intervals import Estimate


def render(run: records.RunDir, repo: str, checkpoint: str, step: int, parameters: int) -> str:
    """README.md of a published run: metadata between ``---`` lines, then Markdown.

    Args:
        checkpoint: name of the checkpoint the weights come from.
        parameters: numbers in the weights.
    """
    about = run.read_run()
    package = str(about.get("package") or run.path.parent.name)
    evaluations = records.read_evaluations(run)
    sections = [
        f"# {repo.rpartition('/')[2]}",
        f"Run `{run.name}` of the package `{package}`: {parameters:,} parameters, step {step}.",
        "## Measured",
        *([_evaluation(split, found, checkpoint) for split, found in evaluations.items()] or ["Not evaluated."]),
        "## Use",
        _use(repo, f"python -m {package.replace('-', '_')}", run.name),
        "## Training",
        _training(about, (run.path / "config.yaml").read_text(encoding="utf-8")),
        *_pictures(run),
    ]
    return f"---\n{_metadata(repo, package, evaluations)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(repo: str, package: str, evaluations: dict[str, dict[str, Any]]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=str(found.get("task", "other")),
            dataset_type=package,
            dataset_name=str(found.get("dataset", package)),
            dataset_split=split,
            metric_type=name,
            metric_name=name.replace("_", " "),
            metric_value=metric["value"],
            metric_args={key: metric[key] for key in ("low", "high", "n", "method") if metric.get(key) is not None},
        )
        for split, found in evaluations.items()
        for name, metric in found["metrics"].items()
        if metric["value"] is not None
    ]
    data = ModelCardData(
        library_name="pytorch",
        tags=[package],
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=repo.rpartition("/")[2],
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _evaluation(split: str, found: dict[str, Any], checkpoint: str) -> str:
    """One split: a table of the metrics, each baseline in a column beside the model."""
    baselines = found.get("baselines", {})
    lines = [
        f"### {split} (n = {found['n']:,})" if "n" in found else f"### {split}",
        "",
        "| " + " | ".join(["metric", "this model", *(f"baseline: {name}" for name in baselines)]) + " |",
        "|---" * (2 + len(baselines)) + "|",
    ]
    headline = found.get("headline")
    for name, metric in sorted(found["metrics"].items(), key=lambda item: item[0] != headline):
        cells = [f"**{name}**" if name == headline else name, _number(metric)]
        cells += [_number(baseline[name]) if name in baseline else "" for baseline in baselines.values()]
        lines.append("| " + " | ".join(cells) + " |")
    methods = sorted({metric["method"] for metric in found["metrics"].values() if metric.get("method")})
    notes = [f"Intervals: {', '.join(methods)}."] if methods else []
    notes += [f"Baseline {name}: {baseline['what']}." for name, baseline in baselines.items() if "what" in baseline]
    notes += [str(note) for note in found.get("notes", [])]
    if found.get("checkpoint") and checkpoint not in str(found["checkpoint"]).split("/"):
        notes.append(f"Measured on {found['checkpoint']}, while the weights here are those of {checkpoint}.")
    return "\n".join([*lines, *([""] if notes else []), *(f"* {note}" for note in notes)])


def _number(metric: dict[str, Any]) -> str:
    estimate = Estimate.from_dict(metric)
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.low):
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _use(repo: str, command: str, name: str) -> str:
    return f"```\n{command} pull {repo}\n{command} predict --run {repo.rpartition('/')[2]}\n```\n\n" + (
        "Weights are in `model.safetensors` (nothing in it can run code), the whole configuration in `config.yaml`; "
        f"`{command} train --config config.yaml --name {name}` repeats the training."
    )


def _training(about: dict[str, Any], config: str) -> str:
    """What it was trained with and on, as far as the run wrote it down, and the configuration."""
    facts = [f"* {name} {version}" for name, version in about.get("versions", {}).items()]
    facts += [f"* {key}: {about[key]}" for key in ("commit", "device", "precision", "world") if about.get(key)]
    folded = ["", "<details><summary>Configuration</summary>", "", "```yaml", config.strip(), "```", "", "</details>"]
    return "\n".join([*facts, *folded])


def _pictures(run: records.RunDir) -> list[str]:
    pictures = sorted(run.figures.glob("*.png")) if run.figures.is_dir() else []
    return ["## Figures", *(f"![{path.stem}](figures/{path.name})" for path in pictures)] if pictures else []
