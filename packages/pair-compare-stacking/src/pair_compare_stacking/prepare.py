"""The verb `prepare`: single digits -> a prepared set of pairs.

A prepared set is a folder with the files of pairs (`pairfile`), ``pool.npz`` (images, labels, ids: the single digits
that a training stream may use, namely those of the train pool that no half of val was made of and that are not
withheld), ``pool_withheld.npz`` (those that are, for fitting what learns from the answers of trained models),
``test_public_labels.csv`` and ``dataset.json``, which is written last. Until then ``prepare.json`` lists the files that
are finished, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pair_compare_stacking import pairfile, submission
from pair_compare_stacking.generator import DIGITS, SIDE, sample_pairs
from pair_compare_stacking.pairs_config import Data
from pair_compare_stacking.sources import Pool, Source, load_source
from shared_core import files, prepared, progress, splits
from shared_core.errors import UserError

if TYPE_CHECKING:
    from pair_compare_stacking.config import Config, PrepareOptions
    from shared_core.cli import App

PACKAGE = "pair-compare-stacking"
GENERATOR = 1  # raise it when the same settings give other files
VAL_SHARE = 1 / 6  # of the train pool's images, under protocol disjoint
RECORD = "prepare.json"
POOL, WITHHELD = "pool.npz", "pool_withheld.npz"
LABELS = "test_public_labels.csv"


@dataclass(frozen=True)
class Part:
    """One file of pairs to be made."""

    name: str  # train: train.npz
    pool: str  # train or test
    n: int
    seed: int

    @property
    def files(self) -> tuple[str, ...]:
        """Every file this part writes; the public test's labels lie apart from its pictures."""
        labels = (LABELS,) if self.name == "test_public" else ()
        return (f"{self.name}.npz", f"{self.name}.truth.npz", *labels)


def run(app: App, config: Config, options: PrepareOptions | None) -> int:
    """Prepare the set that the data section describes."""
    data = config.data.sample() if options is not None and options.sample else config.data
    prepare(data, config.paths.data / PACKAGE / data.folder, bar=config.logging.progress)
    return 0


def prepare(data: Data, folder: Path, bar: bool = True) -> dict[str, Any]:
    """Write the set into `folder`, or what is missing of it; returns its manifest.

    Raises UserError for an unusable source, a folder with files of pairs that `prepare` did not write, and a full disk.
    """
    if data.is_given:
        from pair_compare_stacking import given

        return given.take(data, folder)
    source = load_source(data.source, data.path)
    origin = {"train images": f"sha256:{source.train.sha256()}", "test images": f"sha256:{source.test.sha256()}"}
    mark = prepared.fingerprint(origin, settings(data))
    parts = _parts(data)
    finished = _finished(folder, mark)
    todo = [part for part in parts if not set(part.files) <= set(finished)]
    if not todo and set(_pools(data)) <= set(finished) and prepared.is_current(folder, mark):
        progress.message(f"{folder}: up to date")
        return prepared.read_manifest(folder)
    announce(folder, mark, origin, data, finished)
    files.require_space(folder, _bytes(todo, source), "the data set")
    clear(folder, mark, finished)
    with progress.Bar(sum(part.n for part in todo), bar, "preparing", unit="pairs") as line:
        done = 0

        def advance(pairs: int) -> None:
            nonlocal done
            done += pairs
            line.update(done)

        for part in todo:
            _make(part, data, source, folder, advance)
            finished |= {name: files.sha256(folder / name) for name in part.files}
            _write_record(folder, mark, finished)
    _write_pools(data, source.train, folder)
    return _finish(data, folder, parts, mark, origin)


def settings(data: Data) -> dict[str, Any]:
    """What the content of the files depends on, besides the source's images."""
    return {"generator": GENERATOR, **data.model_dump(mode="json", exclude={"name", "path"})}


def require(config: Config) -> Path:
    """The folder of the configuration's prepared set.

    Raises UserError where it is not there, or was prepared with other settings; the source is not looked at.
    """
    return prepared.require(config.paths.data / PACKAGE / config.data.folder, settings(config.data))


def _parts(data: Data) -> list[Part]:
    parts = [
        Part("train", "train", data.n_train, data.train_seed),
        Part("val", "train", data.n_val, data.val_seed),
        Part("test_public", "test", data.n_test_public, data.test_public_seed),
        Part("test_disjoint", "test", data.n_test_disjoint, data.test_disjoint_seed),
    ]
    return [part for part in parts if part.n]


def _pools(data: Data) -> tuple[str, ...]:
    """The files of single digits."""
    return (POOL, WITHHELD) if data.withheld else (POOL,)


def _bytes(todo: list[Part], source: Source) -> int:
    """Upper bound of what will be written: noise hardly compresses."""
    return sum(part.n for part in todo) * (2 * SIDE * SIDE + 100) + source.train.images.nbytes


# What is there already


def _finished(folder: Path, mark: str) -> dict[str, str]:
    """SHA-256 of the files in `folder` that belong to this very set and are whole."""
    listed: dict[str, str] = {}
    with contextlib.suppress(UserError):
        manifest = prepared.read_manifest(folder)
        if manifest["fingerprint"] == mark:
            listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    record = _read_record(folder)
    if not listed and record is not None and record["fingerprint"] == mark:
        listed = record["files"]
    return {
        name: digest
        for name, digest in listed.items()
        if name in _all_files() and (folder / name).is_file() and files.sha256(folder / name) == digest
    }


def announce(
    folder: Path, mark: str, origin: Mapping[str, Path | str], data: Data, finished: Mapping[str, str]
) -> None:
    """Say what is stale, damaged or already done. Raises UserError where the folder's files are somebody else's."""
    strangers = [name for name in _all_files() if (folder / name).exists()]
    record = _read_record(folder)
    if (folder / prepared.NAME).exists():
        try:
            reasons = prepared.changes(folder, origin, settings(data))
        except UserError:
            reasons = [f"{prepared.NAME} is damaged"]
        reasons = reasons or [f"{name} is damaged" for name in strangers if name not in finished]
        progress.message(f"{folder}: stale, preparing it again: {'; '.join(reasons) or 'files are missing'}")
    elif record is not None and record["fingerprint"] == mark:
        progress.message(f"{folder}: going on, finished before: {', '.join(sorted(finished)) or 'nothing'}")
    elif record is not None:
        progress.message(f"{folder}: dropping an unfinished set of other settings or sources")
    elif strangers:
        raise UserError(f"{folder}: holds {strangers[0]}, which `prepare` did not write: move it or set data.name")


def clear(folder: Path, mark: str, finished: Mapping[str, str]) -> None:
    """From here on the folder is an unfinished set with `finished` in it, and with nothing else of ours."""
    _write_record(folder, mark, finished)
    (folder / prepared.NAME).unlink(missing_ok=True)
    for name in _all_files():
        for torn in folder.glob(f".{name}.tmp-*"):  # left by a kill in the middle of a write
            torn.unlink()
        if name not in finished:
            (folder / name).unlink(missing_ok=True)


def _all_files() -> list[str]:
    every = _parts(Data(n_test_disjoint=1))
    return [name for part in every for name in part.files] + [POOL, WITHHELD]


def _write_record(folder: Path, mark: str, finished: Mapping[str, str]) -> None:
    files.atomic_write(folder / RECORD, json.dumps({"fingerprint": mark, "files": dict(finished)}, indent=1) + "\n")


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and isinstance(record.get("files"), dict) and "fingerprint" in record
    return record if known else None


# Making what is not there


def _make(part: Part, data: Data, source: Source, folder: Path, advance: Callable[[int], None]) -> None:
    """Generate and write one part."""
    pool: Pool = getattr(source, part.pool)
    rows = _rows(part, data, pool, folder)
    chosen = pool.take(rows)
    try:
        pairs = sample_pairs(chosen.images, chosen.labels, part.n, part.seed, data.weight_diff1, data.severity, advance)
    except UserError as error:
        raise UserError(f"{part.name}.npz: {error}; {len(rows)} source images are left for this file") from error
    truth = pairfile.Truth(pairs.digits, chosen.ids[pairs.sources], rows[pairs.sources].astype(np.int32), part.pool)
    path = folder / f"{part.name}.npz"
    if part.name != "test_public":
        pairfile.write(path, pairfile.PairFile(pairs.x, pairs.y, truth=truth))
        return
    ids = np.array([f"PUB_{row:07d}" for row in range(part.n)])
    pairfile.write(path, pairfile.PairFile(pairs.x, ids=ids, truth=truth))
    submission.write(folder / LABELS, ids, pairs.y)


def _rows(part: Part, data: Data, pool: Pool, folder: Path) -> np.ndarray:
    """Rows of its pool that the part's pairs may be drawn from.

    The course draws train and val from one pool, and `test_disjoint` then takes what public left over. Otherwise the
    train pool is split between train and val, and the test pool between the two test files where both are wanted.
    """
    everything = np.arange(len(pool))
    if data.protocol == "course":
        if part.name != "test_disjoint":
            return everything
        return np.setdiff1d(everything, pairfile.read_truth(folder / "test_public.npz").rows)
    if part.pool == "test" and not data.n_test_disjoint:
        return everything
    if part.name == "train":
        return np.setdiff1d(_divided(data, pool)["train"], _withheld(data, pool, folder))
    if part.name == "val":
        return _divided(data, pool)["val"]
    return splits.stratified(pool.labels, {"test_public": 0.5, "test_disjoint": 0.5}, data.split_seed)[part.name]


def _divided(data: Data, pool: Pool) -> dict[str, np.ndarray]:
    """Rows of the train pool for train and for val, under protocol disjoint."""
    return splits.stratified(pool.labels, {"train": 1 - VAL_SHARE, "val": VAL_SHARE}, data.split_seed)


def _withheld(data: Data, pool: Pool, folder: Path) -> np.ndarray:
    """Rows of the train pool that are withheld: of those that val may not use, or has not used where it may use all.

    Raises UserError where some digit has too few images for both sides.
    """
    if not data.withheld:
        return np.empty(0, np.int64)
    rows = _divided(data, pool)["train"] if data.protocol == "disjoint" else _unused(pool, folder)
    generator = np.random.default_rng(data.split_seed)
    chosen = []
    for digit in range(DIGITS):
        members = generator.permutation(rows[pool.labels[rows] == digit])
        if len(members) < 2:
            raise UserError(
                f"data.withheld {data.withheld:g}: source images of digit {digit} left for training: {len(members)}, "
                "which cannot be divided; set it to 0, lower data.n_val, or use a larger source"
            )
        count = min(max(round(data.withheld * len(members)), 1), len(members) - 1)
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def _unused(pool: Pool, folder: Path) -> np.ndarray:
    """Rows of the train pool that no half of val was made of."""
    return np.setdiff1d(np.arange(len(pool)), pairfile.read_truth(folder / "val.npz").rows)


def _write_pools(data: Data, pool: Pool, folder: Path) -> None:
    withheld = _withheld(data, pool, folder)
    rows = {POOL: np.setdiff1d(_unused(pool, folder), withheld), WITHHELD: withheld}
    for name in _pools(data):
        chosen = pool.take(rows[name])
        with files.atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, images=chosen.images, labels=chosen.labels, ids=chosen.ids)


def _finish(data: Data, folder: Path, parts: list[Part], mark: str, origin: Mapping[str, str]) -> dict[str, Any]:
    """Look for leaks, write the manifest, and drop the record that stood in for it."""
    truths = {part.name: pairfile.read_truth(folder / f"{part.name}.npz") for part in parts}
    pools = {name: pairfile.read_npz(folder / name, ("ids",))["ids"] for name in _pools(data)}
    _check_disjoint(data, truths, pools)
    found = leaks(truths, pools.get(WITHHELD))
    for what, share in found.items():
        if share:
            progress.message(f"{share:.1%} of the {what} (protocol {data.protocol})")
    counts = {
        "pairs": {name: _summary(truth) for name, truth in truths.items()},
        "source_images": {name: len(ids) for name, ids in pools.items()},
        "leaks": found,
        "made_with": {name: version(name) for name in ("numpy", "pillow")},
    }
    names = [name for part in parts for name in part.files] + list(pools)
    prepared.write_manifest(folder, mark, origin, settings(data), counts, names)
    (folder / RECORD).unlink(missing_ok=True)
    kept_back = f"; {len(pools[WITHHELD]):,} source images withheld" if data.withheld else ""
    progress.message(f"{folder}: {', '.join(f'{part.name} {part.n:,}' for part in parts)} pairs{kept_back}")
    return prepared.read_manifest(folder)


def _summary(truth: pairfile.Truth) -> dict[str, Any]:
    left, right = truth.digits.T.astype(int)
    return {
        "n": len(left),
        "left_larger": int((left > right).sum()),
        "neighbours": round(float((abs(left - right) == 1).mean()), 4),
        "source_images": len(np.unique(truth.sources)),
    }


def _check_disjoint(data: Data, truths: Mapping[str, pairfile.Truth], pools: Mapping[str, np.ndarray]) -> None:
    """Refuse a set in which something shows what it must not: the leak check.

    Nothing that models are chosen, combined or judged on may show an image of the stream's. `train` is made of the
    stream's images, and under protocol course of all others, too; then it is for looking at only.
    """
    used = {name: truth.sources.ravel().tolist() for name, truth in truths.items()}
    single = {name: ids.tolist() for name, ids in pools.items()}
    splits.check_disjoint({**single, **{name: ids for name, ids in used.items() if name != "train"}}, "source images")
    if data.protocol == "disjoint":
        single.pop(POOL)
        splits.check_disjoint({**single, **used}, "source images")


def leaks(truths: Mapping[str, pairfile.Truth], withheld: np.ndarray | None) -> dict[str, float]:
    """For every two files, the share of the second's halves whose source image the first uses as well.

    And for every file, the share of its halves that show a withheld image (ids of those, where there are any).
    """
    names = list(truths)
    shown = (
        {}
        if withheld is None
        else {
            f"halves of {name} show a withheld source image": round(float(np.isin(truth.sources, withheld).mean()), 4)
            for name, truth in truths.items()
        }
    )
    return shown | {
        f"halves of {second} show a source image of {first}": round(
            float(np.isin(truths[second].sources, truths[first].sources).mean()), 4
        )
        for index, first in enumerate(names)
        for second in names[index + 1 :]
    }
