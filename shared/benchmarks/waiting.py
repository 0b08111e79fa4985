"""What it costs that PyTorch's threads wait asleep (OMP_WAIT_POLICY=PASSIVE, our default) and not in a busy loop.

    python shared/benchmarks/waiting.py

A small convolutional network trains with as many threads as there are cores, once with the machine for itself and once
beside a program that keeps every core busy, under either policy; the policies take turns. OpenMP reads the policy when
it is loaded, so every measurement is a process of its own.
"""

import os
import subprocess
import sys
import time

from shared_core.measured import load, spread

REPEATS, SECONDS = 3, 10.0
POLICIES = ("PASSIVE", "ACTIVE", "")  # the last: GNU OpenMP's own default, a busy loop of limited length


def steps_per_second() -> float:
    """Speed of the network in this process."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    x, y = torch.randn(128, 1, 28, 28), torch.randint(0, 10, (128,))
    steps, began = -3, time.perf_counter()  # three to warm up
    while steps <= 0 or time.perf_counter() - began < SECONDS:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        steps += 1
        if steps == 0:
            began = time.perf_counter()
    return steps / (time.perf_counter() - began)


def measure(policy: str, crowded: bool) -> float:
    """The same in a new process, under `policy`, beside busy programs or not."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1) if crowded]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    try:
        child = [sys.executable, __file__, "child"]
        return float(subprocess.run(child, env=environment, capture_output=True, text=True, check=True).stdout)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    print(f"{os.cpu_count()} cores, load {load()}; steps/s, median of {REPEATS} (smallest..largest)")
    print("\n| policy | alone | beside busy programs |\n|---|---|---|")
    found = {(policy, crowded): list[float]() for policy in POLICIES for crowded in (False, True)}
    for _ in range(REPEATS):
        for policy, crowded in found:
            found[policy, crowded].append(measure(policy, crowded))
    for policy in POLICIES:
        alone, beside = (spread(found[policy, crowded], ".3g") for crowded in (False, True))
        print(f"| {policy or 'none'} | {alone} | {beside} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        print(steps_per_second())
    else:
        main()
