"""Reports: what came out of one run, or how several compare, as HTML, Markdown and JSON.

The headline comes first, with its interval, n and baseline; then what was run, the learning curves, every split's
tables and figures, the environment and the warnings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_core import files, records
from shared_core.errors import UserError
from shared_core.report import compare, data, html, markdown, single

__all__ = ["write"]


def write(run_paths: Sequence[Path], out: Path | None = None, headline: str = "accuracy") -> Path:
    """Write report.html (one file that needs nothing else), report.md and report.json.

    Args:
        run_paths: folders of runs; several are compared, with the first one as the reference.
        out: folder of the report; default: the run's own, or for several `compare-A-B` beside the first.
        headline: metric to show first where a run has it.

    Returns:
        The path of report.html.

    Raises:
        UserError: a folder is no run or its files are damaged, no run is given, or `out` cannot be written.
    """
    runs = _load([Path(path) for path in run_paths])
    folder = Path(out) if out else _default_folder(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.explain(error, folder) from error
    drawings = runs[0].run.figures if folder == runs[0].run.path else folder / "figures"
    if len(runs) == 1:
        document = single.document(runs[0], headline, drawings)
    else:
        document = compare.document(runs, headline, drawings)
    files.atomic_write(folder / "report.json", json.dumps(records.encode(_as_json(runs, headline)), indent=2) + "\n")
    files.atomic_write(folder / "report.md", markdown.render(document, folder))
    files.atomic_write(folder / "report.html", html.render(document))
    return folder / "report.html"


def _load(paths: list[Path]) -> list[data.RunData]:
    """The runs, with labels that tell them apart."""
    if not paths:
        raise UserError("no run to report on; give the folder of a run, such as runs/PACKAGE/NAME")
    folders = [records.find(path).path.resolve() for path in paths]
    if len(set(folders)) < len(folders):
        raise UserError(f"{paths[0]}: the same run is given twice; a comparison needs different ones")
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = ["/".join(folder.parts[-3:]) for folder in folders]
    return [data.load(path, name) for path, name in zip(paths, names, strict=True)]


def _default_folder(runs: list[data.RunData]) -> Path:
    if len(runs) == 1:
        return runs[0].run.path
    names = "-".join(run.run.name for run in runs)
    return runs[0].run.path.parent / f"compare-{names}"[:100]


def _as_json(runs: list[data.RunData], headline: str) -> dict[str, Any]:
    """The report's content for programs: what was measured, and for several runs the differences from the first."""
    content: dict[str, Any] = {
        "runs": [
            {
                "name": run.label,
                "path": str(run.run.path),
                "headline": {"split": run.split, "metric": run.headline(headline)},
                "state": run.status.get("state"),
                "evaluations": run.evaluations,
                "config": run.config,
                "command": run.command,
                "environment": run.info,
                "training": dict(run.summary()),
                "warnings": run.warnings,
            }
            for run in runs
        ]
    }
    split = runs[0].split
    if len(runs) > 1 and split is not None:
        content["differences"] = [
            {"metric": metric, "run": run.label, "overlap": overlap, **gap.as_dict()}
            for metric in runs[0].evaluations[split]["metrics"]
            for run, gap, overlap in compare.differences(runs, split, metric)
        ]
    return content
