"""The batched degrader against Pillow as a distribution: can a trained classifier tell the two apart?"""

import os
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

from pair_compare_stacking import degrade, generator

HALVES = 20_000  # of each generator; the first 60 % of them train a witness

# (pixels uint8 (N, 28, 28), labels (N,), which rows train (N,)) -> scores of the other rows
Witness = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def digits_of_mnist() -> np.ndarray:
    folder = os.environ.get("TEST_DATA_DIR")
    if folder is None:
        pytest.skip("TEST_DATA_DIR is not set: the two-sample test needs its mnist/mnist.npz")
    with np.load(Path(folder) / "mnist" / "mnist.npz") as archive:
        return archive["Xt"]


@lru_cache(maxsize=3)
def two_samples(severity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Halves by Pillow, by the batched degrader from the same digits, and by it from other digits."""
    digits = digits_of_mnist()
    rows = np.random.default_rng(0).permutation(len(digits))[: 2 * HALVES]
    rng = random.Random(12)
    pillows = np.stack([generator.degrade(image, severity, rng) for image in digits[rows[:HALVES]]])
    batched = degrade.degrade(torch.tensor(digits[rows]), severity, torch.Generator().manual_seed(11)).numpy()
    return pillows, batched[:HALVES], batched[HALVES:]


def held_out_auc(witness: Witness, pillows: np.ndarray, others: np.ndarray) -> float:
    """How well the trained witness tells the halves apart; the same digits are held out on both sides."""
    y = np.repeat([0, 1], HALVES)
    train = np.tile(np.arange(HALVES) < 0.6 * HALVES, 2)
    score = witness(np.concatenate([pillows, others]), y, train)
    return area_under_curve(score, y[~train])


def area_under_curve(score: np.ndarray, label: np.ndarray) -> float:
    """Mann-Whitney: the chance that a random positive scores above a random negative; ties count half."""
    ordered = np.sort(score)
    rank = (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right") + 1) / 2
    positive = label.sum()
    return float((rank[label == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(label) - positive)))


def convolutional_witness(x: np.ndarray, y: np.ndarray, train: np.ndarray, epochs: int = 3) -> np.ndarray:
    """Scores of a small convolutional network trained on the rows `train`, for the other rows."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, 64), nn.ReLU(), nn.Linear(64, 1))
    pixels = torch.tensor(x, dtype=torch.float32)[:, None] / 64
    labels = torch.tensor(y, dtype=torch.float32)
    rows = torch.tensor(np.flatnonzero(train))
    steps = epochs * (len(rows) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        if step % (steps // epochs) == 0:
            rows = rows[torch.randperm(len(rows))]
        batch = rows[(step * 128) % (len(rows) // 128 * 128) :][:128]
        loss = nn.functional.binary_cross_entropy_with_logits(network(pixels[batch])[:, 0], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part)[:, 0] for part in pixels[torch.tensor(~train)].split(1000)]).numpy()


def tree_witness(x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scores of boosted trees on the pixels, the histogram of greys and the roughness."""
    histogram = np.stack([np.bincount(image.ravel(), minlength=256) for image in x])
    flat = x.reshape(len(x), -1).astype(np.float32)
    rough = np.stack([np.abs(np.diff(x.astype(int), axis=axis)).mean((1, 2)) for axis in (1, 2)], axis=1)
    features = np.column_stack([flat, histogram, rough, flat.mean(1), flat.std(1)])
    trees = HistGradientBoostingClassifier(max_iter=60, max_features=0.2, early_stopping=False, random_state=0)
    return trees.fit(features[train], y[train]).decision_function(features[~train])


@pytest.mark.slow
@pytest.mark.parametrize("severity", [1, 3, 6])
@pytest.mark.parametrize("witness", [convolutional_witness, tree_witness])
def test_no_classifier_tells_the_generators_apart(witness: Witness, severity: int) -> None:
    """Held-out AUC near .5 (its standard error is .005), be the digits behind the halves the same or others."""
    pillows, same_digits, other_digits = two_samples(severity)
    same, other = held_out_auc(witness, pillows, same_digits), held_out_auc(witness, pillows, other_digits)
    print(f"severity {severity}, {witness.__name__}: AUC {same:.3f} on the same digits, {other:.3f} on others")
    assert max(same, other) <= 0.52


@pytest.mark.slow
@pytest.mark.parametrize("witness", [convolutional_witness, tree_witness])
def test_the_classifiers_would_notice_one_grey_level(witness: Witness) -> None:
    """Were they blind to a small fault, their silence about the generators would mean nothing."""
    pillows, same_digits, _ = two_samples(severity=6)
    brighter = np.where(same_digits > 0, np.minimum(same_digits, 254) + 1, 0)
    auc = held_out_auc(witness, pillows, brighter)
    print(f"one grey level, {witness.__name__}: AUC {auc:.3f}")
    assert auc > 0.55
