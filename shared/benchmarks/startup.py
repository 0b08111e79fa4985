"""How long `pair-compare train --help` takes, beside Python itself and beside importing torch.

    python shared/benchmarks/startup.py

Each of the three is started in turn, several times; the table shows the median wall and CPU seconds of a whole
process, and the ratio to a bare `python -c pass`.
"""

import os
import resource
import statistics
import subprocess
import sys
import time

from shared_core.measured import load, spread

REPEATS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "pair-compare train --help": ["-m", "pair_compare_stacking", "train", "--help"],
    "python -c 'import torch'": ["-c", "import torch"],
}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            seconds[name].append(measure(arguments))
    base = statistics.median(cpu for _, cpu in seconds["python -c pass"])
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load()}, n = {REPEATS}\n")
    print("| command | wall s (min..max) | CPU s (min..max) | CPU ratio |\n|---|---|---|---|")
    for name, found in seconds.items():
        walls, cpus = zip(*found, strict=True)
        print(f"| {name} | {spread(walls, '.2f')} | {spread(cpus, '.2f')} | {statistics.median(cpus) / base:.1f} |")


if __name__ == "__main__":
    main()
