"""Pairs per second on one core: the sequential Pillow generator against the batched degrader.

    python packages/pair-compare-stacking/benchmarks/degrade.py [--severity 6] [--repeats 7]

Both draw whole pairs (digits, source images, degradation) from the same random source pictures, whose content does
not matter for the time. Seconds are the process's own CPU seconds; the two alternate, so that whatever else the
machine does hits both, and the ratio is taken within each repeat.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from pair_compare_stacking import degrade, generator
from shared_core.measured import load, processor, spread

SOURCES = 10_000


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--severity", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=512, help="pairs per call of the batched degrader")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(SOURCES) % 10
    images = torch.randint(0, 256, (SOURCES, 28, 28), generator=random, dtype=torch.uint8)
    index = degrade.DigitIndex.of(labels)
    pixels, digits = images.numpy(), labels.numpy()
    few, calls = 300, 10

    def sequential() -> None:
        generator.sample_pairs(pixels, digits, few, 0, 0.8, options.severity)

    def batched() -> None:
        for _ in range(calls):
            degrade.sample_pairs_batch(images, index, options.batch, options.severity, 0.8, random)

    sequential(), batched()  # tables, caches
    slow, fast = [], []
    for _ in range(options.repeats):
        slow.append(few / cpu_seconds(sequential))
        fast.append(calls * options.batch / cpu_seconds(batched))
    ratios = [f / s for f, s in zip(fast, slow, strict=True)]
    print(f"{processor()}, one thread, load {load()}; severity {options.severity}, {options.batch} pairs a batch")
    print(f"{options.repeats} repeats; median (smallest..largest)")
    print(f"Pillow, pairs/s    {spread(slow, ',.0f')}")
    print(f"batched, pairs/s   {spread(fast, ',.0f')}")
    print(f"ratio              {spread(ratios, '.1f')}")
    print(f"one pass over 100,000 pairs: {1e5 / np.median(slow):.0f} s against {1e5 / np.median(fast):.0f} s")


if __name__ == "__main__":
    main()
