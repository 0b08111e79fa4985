"""Learning curves: the error on val against the pairs learned from, and how far a goal is along them.

    python packages/pair-compare-stacking/benchmarks/curves.py [--goal 0.9309] [NAME=]PATH[,PATH...] ...

Each argument is a point: runs or saved models (RUN/models/NAME) that differ in their seed alone, with a name before
them or without. Points whose networks have equally many parameters are one curve, in order of the pairs. Between two
of its points the error falls as a power of the pairs, error = c * pairs ** -slope; from the last two the script says
how many pairs the goal would take if that held. Learning curves flatten towards the error that no classifier can
avoid, so this is the least it would take.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from pair_compare_stacking import saved
from pair_compare_stacking.train import build_model
from shared_core import records
from shared_core.errors import UserError


@dataclass(frozen=True)
class Point:
    """Models of one kind and length."""

    name: str
    parameters: int
    pairs: int  # that each learned from
    accuracies: list[float]  # on val, of each; the latest evaluation in the course of training

    @property
    def error(self) -> float:
        return 1 - sum(self.accuracies) / len(self.accuracies)


def point(text: str) -> Point:
    name, equals, paths = text.rpartition("=")
    folders = [Path(path) for path in paths.split(",")]
    first = saved.read_config(folders[0])
    batch = first.training.batch_size * first.training.accumulation
    pairs = first.training.epochs * (first.stream.pairs_per_epoch // batch) * batch
    parameters = sum(p.numel() for p in build_model(first).parameters())
    return Point(name if equals else folders[0].name, parameters, pairs, [accuracy(path) for path in folders])


def accuracy(path: Path) -> float:
    """The last one on val, of a run or of one of its models."""
    home, key = path, "val/accuracy"
    if path.parent.name == saved.FOLDER:
        home, key = path.parent.parent, f"val/{path.name}/accuracy"
    return float([row[key] for row in records.read_metrics(home) if key in row][-1])


def slope(before: Point, after: Point) -> float:
    """Of the error in the pairs, both as logarithms; positive where it falls."""
    return -math.log(after.error / before.error) / math.log(after.pairs / before.pairs)


def lines(points: list[Point], goal: float) -> list[str]:
    """A row for each point, curve by curve."""
    found = [f"{'':32} {'parameters':>10} {'pairs':>10} {'seeds':>5}  {'val':>14}  {'slope':>6}  pairs for {goal:g}"]
    for size in sorted({p.parameters for p in points}):
        curve = sorted((p for p in points if p.parameters == size), key=lambda p: p.pairs)
        for place, now in enumerate(curve):
            values = f"{1 - now.error:.4f}" + (f" ±{spread(now):.4f}" if len(now.accuracies) > 1 else "")
            row = f"{now.name:32} {now.parameters:>10,} {now.pairs:>10,} {len(now.accuracies):>5}  {values:>14}"
            if place and now.pairs > curve[place - 1].pairs:
                s = slope(curve[place - 1], now)
                row += f"  {s:6.3f}  " + (
                    f"{now.pairs * ((1 - goal) / now.error) ** (-1 / s):,.0f}" if s > 0 else "never"
                )
            found.append(row)
    return found


def spread(of: Point) -> float:
    """Half the range over seeds."""
    return (max(of.accuracies) - min(of.accuracies)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", nargs="+", help="[NAME=]PATH[,PATH...]: runs or RUN/models/NAME")
    parser.add_argument("--goal", type=float, default=0.9309, help="accuracy on val")
    given = parser.parse_args()
    try:
        points = [point(text) for text in given.points]
    except UserError as error:
        parser.error(str(error))
    print("\n".join(lines(points, given.goal)))


if __name__ == "__main__":
    main()
