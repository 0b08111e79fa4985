"""Pairs per second at inference: an ensemble, each of its models, and single models such as its student.

    python packages/pair-compare-stacking/benchmarks/throughput.py ten distilled [--device cpu] [--repeats 7]

The first run is the ensemble, the others are compared with it; each is a name in the folder of runs, or a path. A pair
is timed from its uint8 picture to its answer, in batches as `predict` makes them, combining included. All take
turns, so that whatever else the machine does hits them alike, and ratios are taken within each turn. The pictures are
random: what they show does not matter for the time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from pair_compare_stacking import saved, stackers, subject, train
from pair_compare_stacking.model import PairModel
from pair_compare_stacking.subject import Several, Single
from shared_core import measured, records
from shared_core.errors import UserError
from shared_core.measured import seconds, spread
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as Settings


def find(name: str, home: Path) -> Single | Several:
    run = records.find(home / name if (home / name).is_dir() else Path(name))
    return subject.of_run(run, saved.read_config(run.path))


def ensemble_first(
    parser: argparse.ArgumentParser, names: list[str], home: Path
) -> tuple[Several, dict[str, Single | Several]]:
    """The first run, which must be an ensemble, and the others by name; ends the program where that cannot be."""
    try:
        first, *others = (find(name, home) for name in names)
    except UserError as error:
        parser.error(str(error))
    if not isinstance(first, Several):
        parser.error(f"{names[0]}: is a single model; name the ensemble first")
    return first, dict(zip(names[1:], others, strict=True))


def works(
    ensemble: Several, others: dict[str, Single | Several], x: torch.Tensor, runtime: Runtime
) -> dict[str, Callable[[], object]]:
    """What is timed, by the name of its row; the ensemble comes first."""

    def single(model: PairModel) -> Callable[[], object]:
        return lambda: train.predict(model, x, runtime)

    def several(who: Several) -> Callable[[], object]:
        return lambda: who.ensemble.combine(who.ensemble.base(x, runtime), who.method)

    found: dict[str, Callable[[], object]] = {f"ensemble ({ensemble.method})": several(ensemble)}
    best = stackers.best_single(ensemble.ensemble.stackers)
    for name, model in ensemble.ensemble.models.items():
        found[f"{name} (best single)" if name == best else name] = single(model.to(runtime.device))
    for name, who in others.items():
        found[name] = several(who) if isinstance(who, Several) else single(who.model.to(runtime.device))
    return found


def in_turn(todo: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each, turn by turn, after one to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(repeats + 1):
        for name, work in todo.items():
            spent = seconds(work, device)
            if turn:
                taken[name].append(spent)
    return taken


def table(taken: dict[str, list[float]], pairs: int) -> str:
    """Pairs per second, and the cost beside that of the first row, the ensemble."""
    wide = max(map(len, taken))
    lines = [f"{'':{wide}} {'pairs/s':>28}   {'cost, ensemble = 1':>24}"]
    whole = next(iter(taken.values()))
    for name, spent in taken.items():
        ratios = [ours / all_of_them for ours, all_of_them in zip(spent, whole, strict=True)]
        rates = [pairs / value for value in spent]
        lines.append(f"{name:{wide}} {spread(rates, ',.0f'):>28}   {spread(ratios, '.3f'):>24}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", help="the ensemble, then what is compared with it")
    parser.add_argument("--home", type=Path, default=Path("runs/pair-compare-stacking"), help="folder of the runs")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    ensemble, others = ensemble_first(parser, options.runs, options.home)
    runtime = Runtime.start(Settings(device=options.device, threads=options.threads), seed=0)
    x = torch.randint(0, 256, (options.pairs, 28, 56), dtype=torch.uint8)
    todo = works(ensemble, others, x, runtime)
    print(
        f"{measured.device(runtime.device)}, {options.pairs:,} pairs in batches of {train.EVALUATION_BATCH}, "
        f"{options.repeats} turns; median (smallest..largest)"
    )
    print(table(in_turn(todo, options.repeats, runtime.device), options.pairs))


if __name__ == "__main__":
    main()
