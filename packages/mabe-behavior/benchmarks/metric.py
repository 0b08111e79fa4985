"""Seconds for the official score of a submission: by intervals, as `metric.score` has it, and with sets of frames.

    python packages/mabe-behavior/benchmarks/metric.py [--videos 200] [--minutes 10] [--repeats 5]

The videos belong to 15 labs, as those of the challenge's test do, have 30 frames a second, and two mice each. Of both
ordered pairs and both mice alone there are true bouts, and predicted ones that lie a little off, are missing or are of
another action. "sets of frames" restates the challenge's rules as they are written, with a Python set for each video,
agent, target and action; that is also how the official code goes about it. Both must find the same score, which is
checked first; then they take turns on one core.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from statistics import median

import numpy as np

from mabe_behavior import metric
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from shared_core.measured import load, processor, spread

FPS, LABS = 30.0, 15
PAIR, ALONE = ("attack", "chase", "mount", "sniff", "sniffgenital"), ("rear", "selfgroom")
Labeled = Mapping[str, Collection[Behaviour]]


def submission(videos: int, frames: int, seed: int = 0) -> tuple[Bouts, Bouts, dict[str, str], Labeled]:
    """(truth, predicted, lab of each video, what was looked for in it)."""
    rng = np.random.default_rng(seed)
    true, said, labeled = [], [], {}
    for v in range(videos):
        streams = [("mouse1", "mouse2", PAIR), ("mouse2", "mouse1", PAIR), ("mouse1", "self", ALONE)]
        streams.append(("mouse2", "self", ALONE))
        labeled[str(v)] = tuple(Behaviour(agent, target, one) for agent, target, names in streams for one in names)
        for agent, target, names in streams:
            at = 0
            while (at := at + 20 + int(rng.exponential(300))) < frames - 200:
                start, stop = at, at + 10 + int(min(rng.exponential(60), 150))
                action = names[rng.integers(len(names))]
                true.append((str(v), agent, target, action, start, stop))
                if rng.random() < 0.8:
                    other = names[rng.integers(len(names))] if rng.random() < 0.3 else action
                    off = rng.integers(-4, 5, 2)  # bouts are 20 frames apart, so that none overlap
                    said.append((str(v), agent, target, other, start + int(off[0]), stop + int(off[1])))
                at = stop
    return Bouts.of(true), Bouts.of(said), {str(v): f"lab{v % LABS}" for v in range(videos)}, labeled


def by_sets(truth: Bouts, predicted: Bouts, lab_of: Mapping[str, str], labeled: Labeled) -> float:
    """The score once more, frame by frame."""
    there: dict[tuple[str, ...], set[int]] = defaultdict(set)
    said: dict[tuple[str, ...], set[int]] = defaultdict(set)
    taken: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for *key, start, stop in truth.rows:
        there[tuple(key)].update(range(start, stop))
    videos = {key[0] for key in there}
    for video, agent, target, action, start, stop in predicted.rows:
        if video not in videos or Behaviour(agent, target, action) not in labeled[video]:
            continue
        new = set(range(start, stop)) - said[video, agent, target, action]
        if new & taken[video, agent, target]:
            raise ValueError(f"video {video}: two actions of {agent} to {target} in one frame")
        taken[video, agent, target] |= new
        said[video, agent, target, action] |= new
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    for key in {*there, *said}:
        true, found = there.get(key, set()), said.get(key, set())
        of = counts[lab_of[key[0]]][key[3]]
        for k, frames in enumerate((true & found, true - found, found - true)):
            of[k] += len(frames)
    labs = []
    for of_lab in counts.values():
        values = [
            2 * hit / (2 * hit + missed + made) if hit + missed + made else 0 for hit, missed, made in of_lab.values()
        ]
        labs.append(sum(values) / len(values))
    return sum(labs) / len(labs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each video")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    given = submission(options.videos, round(options.minutes * 60 * FPS))
    print(f"{processor()}, one process, load {load()}")
    print(
        f"{options.videos} videos of {options.minutes:g} minutes: {len(given[0]):,} true bouts, {len(given[1]):,} predicted"
    )
    ways = {"by intervals": lambda: metric.score(*given).value, "sets of frames": lambda: by_sets(*given)}
    values = {way: run() for way, run in ways.items()}  # which also warms up
    one, other = values.values()
    if abs(one - other) > 1e-12:
        raise AssertionError(f"the two do not agree: {values}")
    print(f"both find {one:.10f}; seconds, median of {options.repeats} (smallest..largest)")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - began)
    for way, took in seconds.items():
        print(f"  {way:16} {spread(took, '.4f'):>28}")
    ratio = median(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    print(f"  by intervals is {ratio:.1f} x as fast")


if __name__ == "__main__":
    main()
