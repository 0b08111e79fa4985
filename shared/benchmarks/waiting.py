"""What it costs how long PyTorch's threads wait for each other in a busy loop before they sleep (ours: cli.SPIN).

    python shared/benchmarks/waiting.py

A small convolutional network and a small transformer, whose operations are shorter, train with as many threads as there
are cores, once with the machine for themselves and once beside a program that keeps every core busy; the ways to wait
take turns. OpenMP reads its variables when it is loaded, so every measurement is a process of its own.
"""

import os
import subprocess
import sys
import time

from shared_core.cli import SPIN
from shared_core.measured import load, spread

REPEATS, SECONDS = 3, 2.0
NETWORKS = ("convolutions", "transformer")
WAYS = {
    "asleep (OMP_WAIT_POLICY=PASSIVE)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    f"GOMP_SPINCOUNT={SPIN}, ours": {"GOMP_SPINCOUNT": str(SPIN)},
    "GOMP_SPINCOUNT=50000": {"GOMP_SPINCOUNT": "50000"},
    "nothing set: GNU OpenMP's own limit": {},
    "busy (OMP_WAIT_POLICY=ACTIVE)": {"OMP_WAIT_POLICY": "ACTIVE"},
}


def steps_per_second(network: str) -> float:
    """Speed of the network in this process."""
    import torch
    from torch import nn

    if network == "convolutions":
        layers: list[nn.Module] = []
        for before, after in ((1, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))
        x, y = torch.randn(128, 1, 28, 28), torch.randint(0, 10, (128,))
    else:
        block = nn.TransformerEncoderLayer(64, 2, 256, dropout=0.0, batch_first=True)
        model = nn.Sequential(nn.TransformerEncoder(block, 3), nn.Flatten(), nn.Linear(64 * 64, 10))
        x, y = torch.randn(32, 64, 64), torch.randint(0, 10, (32,))
    optimizer = torch.optim.AdamW(model.parameters())
    steps, began = -3, time.perf_counter()  # three to warm up
    while steps <= 0 or time.perf_counter() - began < SECONDS:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        steps += 1
        if steps == 0:
            began = time.perf_counter()
    return steps / (time.perf_counter() - began)


def measure(network: str, way: str, crowded: bool) -> float:
    """The same in a new process, which waits in this way, beside busy programs or not."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1) if crowded]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    try:
        child = [sys.executable, __file__, network]
        done = subprocess.run(child, env=environment | WAYS[way], capture_output=True, text=True, check=True)
        return float(done.stdout)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    print(f"{os.cpu_count()} cores, load {load()}; steps/s, median of {REPEATS} (smallest..largest)\n")
    columns = [(network, crowded) for network in NETWORKS for crowded in (False, True)]
    found = {(way, *column): list[float]() for way in WAYS for column in columns}
    for _ in range(REPEATS):
        for way, network, crowded in found:
            found[way, network, crowded].append(measure(network, way, crowded))
    heads = [f"{network}, {'beside busy programs' if crowded else 'alone'}" for network, crowded in columns]
    print(f"| waiting | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for way in WAYS:
        print(f"| {way} | {' | '.join(spread(found[way, *column], '.3g') for column in columns)} |")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(steps_per_second(sys.argv[1]))
    else:
        main()
