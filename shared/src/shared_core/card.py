"""The model card: what a published model is, how well it does, and how to use it.

The measured metrics are in it twice: as text with their confidence intervals and baselines, and as the structured
`EvalResult` entries that the Hub shows.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from shared_core import records
from shared_core.intervals import Estimate


def render(
    run: records.RunDir,
    repo: str,
    checkpoint: Path | None,
    step: int | None,
    parameters: int | dict[str, int],
    config: str,
) -> str:
    """README.md of a published run: metadata between ``---`` lines, then Markdown.

    Args:
        checkpoint: folder of the checkpoint the weights come from, and its step; None: models of several trainings.
        parameters: numbers in the weights; of several models by their names.
        config: the configuration as it is published.
    """
    about = run.read_run()
    package = str(about.get("package") or run.path.parent.name)
    module = str(about.get("module") or package.replace("-", "_"))
    evaluations = records.read_evaluations(run)
    several = parameters if isinstance(parameters, dict) else {}
    weights = None if several else checkpoint
    name = None if weights is None else weights.name
    measured = [_evaluation(split, found, name) for split, found in evaluations.items()]
    sections = [
        f"# {repo.rpartition('/')[2]}",
        f"Run `{run.name}` of the package `{package}`: {_contents(step, parameters)}.{_unfinished(run)}",
        *(["## Models", _models(several)] if several else []),
        "## Measured",
        *(measured or [f"Not evaluated.{_seen_in_training(weights)}"]),
        "## Use",
        _use(repo, f"python -m {module}", package, several),
        "## Training",
        *([_again(f"python -m {module}", run.name)] if step is not None else []),
        _training(about, config),
        *_pictures(run),
    ]
    return f"---\n{_metadata(repo, package, evaluations)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _contents(step: int | None, parameters: int | dict[str, int]) -> str:
    if isinstance(parameters, int):
        return f"step {step}, {parameters:,} numbers"
    whole = f"{len(parameters)} models, {sum(parameters.values()):,} numbers together"
    return whole if step is None else f"step {step}, {whole}"


def _models(parameters: dict[str, int]) -> str:
    """A table of several models."""
    return "\n".join(["| model | numbers |", "|---|---:|", *(f"| {name} | {n:,} |" for name, n in parameters.items())])


def _unfinished(run: records.RunDir) -> str:
    state = run.read_status().get("state", "finished")
    return "" if state == "finished" else f" The training was not over when this was published: its state was {state}."


def _seen_in_training(checkpoint: Path | None) -> str:
    """The numbers that chose this checkpoint: better than none, but without intervals, and the best of many looks."""
    if checkpoint is None:
        return ""
    try:
        progress = json.loads((checkpoint / "state.json").read_text())["extra"]["progress"]
        best = {name: value for name, value in progress["best"].items() if isinstance(value, float)}
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if not best:
        return ""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in best.items())
    return f" In training, the best check so far was at step {progress['best_step']}: {numbers} (no intervals)."


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


def _evaluation(split: str, found: dict[str, Any], checkpoint: str | None) -> str:
    """One split: a table of the metrics, each baseline in a column beside the model.

    `checkpoint` None: of several models, one or a way of combining them has answered, which the evaluation names.
    """
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
    if checkpoint is None and found.get("checkpoint"):
        notes.insert(0, f"Measured: what `{found['checkpoint']}` answers.")
    elif checkpoint is not None and found.get("checkpoint") and checkpoint not in str(found["checkpoint"]).split("/"):
        notes.append(f"Measured on {found['checkpoint']}, while the weights here are those of {checkpoint}.")
    return "\n".join([*lines, *([""] if notes else []), *(f"* {note}" for note in notes)])


def _number(metric: dict[str, Any]) -> str:
    estimate = Estimate.from_dict(metric)
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.low):
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _use(repo: str, command: str, package: str, several: dict[str, int]) -> str:
    weights = "models/NAME/model.safetensors" if several else "model.safetensors"
    folder = f"runs/{package}/{repo.rpartition('/')[2]}"
    text = (
        f"```\n{command} evaluate --from-hub {repo}\n{command} predict --from-hub {repo}\n```\n\n"
        f"`--from-hub {repo}@REVISION` takes a certain tag, branch or commit. Weights are in `{weights}` "
        "(nothing in it can run code), the whole configuration in `config.yaml`; "
        f"`{command} pull {repo}` puts them into `{folder}`."
    )
    if not several:
        return text
    return f"{text} One model alone: `{command} evaluate --run {folder}/models/{next(iter(several))}`."


def _again(command: str, name: str) -> str:
    return f"`{command} train --config config.yaml --name {name}` repeats the training."


def _training(about: dict[str, Any], config: str) -> str:
    """What it was trained with and on, as far as the run wrote it down, and the configuration."""
    facts = [f"* {name} {version}" for name, version in about.get("versions", {}).items()]
    facts += [f"* {key}: {about[key]}" for key in ("commit", "device", "precision", "processes") if about.get(key)]
    folded = ["", "<details><summary>Configuration</summary>", "", "```yaml", config.strip(), "```", "", "</details>"]
    return "\n".join([*facts, *folded])


def _pictures(run: records.RunDir) -> list[str]:
    pictures = sorted(run.figures.glob("*.png")) if run.figures.is_dir() else []
    return ["## Figures", *(f"![{path.stem}](figures/{path.name})" for path in pictures)] if pictures else []
