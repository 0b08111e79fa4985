"""What the best reader of poses could reach in each simulated lab, and how much labs differ in where they draw lines.

    python packages/mabe-behavior/benchmarks/oracle.py [--draws 3] [--videos 8] [--seconds 60]

In the challenge's metric against the bouts that the lab's annotator marked: "its own rules" are the labels that follow
from the noiseless state by the lab's own thresholds, the oracle; "default rules" are those by the thresholds of
`Rules()`, of the same mice. Where a lab has no thresholds of its own the two agree. Each number is the mean over draws
of so many videos with the least and the largest. The second table has every action: its bouts in the draw that has the
fewest, and its mean F by either rules. It takes half a minute on one core.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from mabe_behavior import metric
from mabe_behavior.bouts import joined
from mabe_behavior.metric import Score
from mabe_behavior.simulation import simulator
from mabe_behavior.simulation.annotators import exact
from mabe_behavior.simulation.labs import LABS, Lab
from mabe_behavior.simulation.rules import Rules


@dataclass(frozen=True)
class Draw:
    """Some videos of a lab."""

    own: Score  # of the lab's own rules
    default: Score
    bouts: dict[str, int]  # action -> how many were marked


def draw(lab: Lab, seeds: range, seconds: float) -> Draw:
    """The scores of both rules on the videos of these seeds."""
    scenes = [simulator.scene(lab, seed, seconds) for seed in seeds]
    recordings = [simulator.recorded(one) for one in scenes]
    truth = joined([one.bouts for one in recordings])
    lab_of, labeled = {one.name: lab.name for one in recordings}, {one.name: one.labeled for one in recordings}
    own, default = (
        metric.score(truth, joined([exact(one.name, one.truth) for one in by]), lab_of, labeled)
        for by in (scenes, [replace(one, lab=replace(lab, rules=Rules())) for one in scenes])
    )
    return Draw(own, default, {action: int((truth.action == action).sum()) for action in lab.actions})


def shown(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}..{max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3, help="of videos, each with other mice")
    parser.add_argument("--videos", type=int, default=8, help="of each lab in a draw")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each video")
    options = parser.parse_args()
    starts = [k * options.videos for k in range(options.draws)]
    found = {
        lab.name: [draw(lab, range(start, start + options.videos), options.seconds) for start in starts] for lab in LABS
    }
    n, seconds = options.videos * options.draws, options.videos * options.draws * options.seconds
    print(f"{'lab':12}{'n':>4}{'seconds':>9}  {'its own rules':24}{'default rules':24}")
    own = {name: [one.own.labs[name] for one in draws] for name, draws in found.items()}
    default = {name: [one.default.labs[name] for one in draws] for name, draws in found.items()}
    for name in found:
        print(f"{name:12}{n:4}{seconds:9.0f}  {shown(own[name]):24}{shown(default[name]):24}")
    means = [[float(np.mean(draws)) for draws in zip(*of.values(), strict=True)] for of in (own, default)]
    print(f"{'mean':12}{n * len(found):4}{seconds * len(found):9.0f}  {shown(means[0]):24}{shown(means[1]):24}")
    print(f"\n{'lab':12}{'action':14}{'fewest bouts':>12}{'own':>8}{'default':>9}")
    for lab in LABS:
        for action in sorted(lab.actions):
            draws = found[lab.name]
            fewest = min(one.bouts[action] for one in draws)
            both = (np.mean([by.actions[lab.name][action] for by in of]) for of in zip(*_scores(draws), strict=True))
            print(f"{lab.name:12}{action:14}{fewest:12}" + "{:8.3f}{:9.3f}".format(*both))


def _scores(draws: list[Draw]) -> list[tuple[Score, Score]]:
    return [(one.own, one.default) for one in draws]


if __name__ == "__main__":
    main()
