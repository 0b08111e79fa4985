"""Ready files of pairs as a prepared set: for who has the pairs, and not the digits that they were made of.

Nothing can be drawn afresh from them, so models learn from `train.npz` itself (``stream.kind: file``), and stackers
from models that were trained without a part of it (``stacking.protocol: out_of_fold``). Where a sidecar with the truth
lies beside a file (`pairfile`), it comes along.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pair_compare_stacking import pairfile, prepare, submission
from pair_compare_stacking.pairfile import PairFile
from pair_compare_stacking.pairs_config import Data
from shared_core import files, prepared, progress
from shared_core.errors import UserError

NEEDED = ("train", "val")
WELCOME = ("test_public", "test_disjoint")


def take(data: Data, folder: Path) -> dict[str, Any]:
    """Check the files of `data.path` and copy them into `folder`; returns the manifest.

    Raises UserError where a file is missing, damaged or without labels, or where the folder holds files of pairs that
    `prepare` did not write.
    """
    source = _source(data, folder)
    origin = {path.name: path for path in _files(source)}
    mark = prepared.fingerprint(origin, prepare.settings(data))
    if prepared.is_current(folder, mark):
        progress.message(f"{folder}: up to date")
        return prepared.read_manifest(folder)
    parts = {path.stem: _read(path) for path in origin.values() if path.stem in (*NEEDED, *WELCOME)}
    prepare.announce(folder, mark, origin, data, {})
    files.require_space(folder, sum(path.stat().st_size for path in origin.values()), "the data set")
    prepare.clear(folder, mark, {})
    for name, pairs in parts.items():
        pairfile.write(folder / f"{name}.npz", pairs)
    return _finish(data, folder, mark, origin, parts)


def _source(data: Data, folder: Path) -> Path:
    if not data.path:
        raise UserError("data.path: no such folder; name the one that holds train.npz and val.npz")
    source = Path(data.path).expanduser()
    if not source.is_dir():
        raise UserError(f"data.path: {source}: no such folder; name the one that holds train.npz and val.npz")
    if source.resolve() == folder.resolve():
        raise UserError(f"data.path: {source}: is where the prepared set goes; put your files elsewhere")
    return source


def _files(source: Path) -> list[Path]:
    """Those that are there. Raises UserError where a needed one is not."""
    for name in NEEDED:
        if not (source / f"{name}.npz").is_file():
            raise UserError(f"{source / name}.npz: no such file; data.path is a folder with train.npz and val.npz")
    every = [source / f"{name}.npz" for name in (*NEEDED, *WELCOME)]
    labels = [source / prepare.LABELS] if (source / "test_public.npz").is_file() else []
    return [path for path in (*every, *map(pairfile.truth_path, every), *labels) if path.is_file()]


def _read(path: Path) -> PairFile:
    """One file, with the labels that lie beside the public test."""
    pairs = pairfile.read(path)
    if path.stem in NEEDED and pairs.y is None:
        raise UserError(f"{path}: has no labels (y), which a file to learn from needs")
    beside = path.with_name(prepare.LABELS)
    if path.stem != "test_public" or pairs.ids is None or not beside.is_file():
        return pairs
    submission.check(beside, pairs.ids)
    labels = submission.read(beside)
    return replace(pairs, y=np.array([labels[str(name)] for name in pairs.ids], np.int8))


def _finish(data: Data, folder: Path, mark: str, origin: dict[str, Path], parts: dict[str, PairFile]) -> dict[str, Any]:
    truths = {name: pairs.truth for name, pairs in parts.items() if pairs.truth is not None}
    leaks = prepare.leaks(truths, None)
    for what, share in leaks.items():
        if share:
            progress.message(f"{share:.1%} of the {what}")
    if unknown := [f"{name}.npz" for name in parts if name not in truths]:
        progress.message(
            f"{', '.join(unknown)}: which source images they show is unknown, and so whether they share some, which "
            "would flatter what is measured"
        )
    counts = {"pairs": {name: {"n": len(pairs)} for name, pairs in parts.items()}, "leaks": leaks}
    names = [f"{name}.npz" for name in parts] + [f"{name}.truth.npz" for name in truths]
    prepared.write_manifest(folder, mark, origin, prepare.settings(data), counts, names)
    (folder / prepare.RECORD).unlink(missing_ok=True)
    progress.message(f"{folder}: {', '.join(f'{name} {len(pairs):,}' for name, pairs in parts.items())} pairs")
    return prepared.read_manifest(folder)
