"""The figures of an evaluation, and those beside predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mabe_behavior import drawings, measures, scenes
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.outcome import Outcome
from mabe_behavior.recording import Recording, file_name

ETHOGRAMS = 2
Row = tuple[str, str, str, str, int, int]  # of `Bouts.rows`
LONG_ENOUGH = 0.5  # seconds of a bout that is shown
MOST_CONFUSED = 20  # actions


def of_evaluation(
    folder: Path, split: str, model: Outcome, oracle: Outcome | None, recording: Callable[[str], Recording]
) -> list[Path]:
    """Scores by laboratory, what is taken for what, ethograms of some recordings, and a bout as the mice move."""
    drawn = [_labs(folder / f"{split}_labs.png", model, oracle)]
    confusion = measures.confusion(model.given, model.said)
    if 2 <= len(confusion.actions) <= MOST_CONFUSED:
        drawn.append(drawings.confusion(confusion.frames_NN, confusion.actions, folder / f"{split}_confusion.png"))
    for name in _richest(model.truth)[:ETHOGRAMS]:
        path = folder / f"{split}_ethogram_{file_name(name)}.png"
        drawn.append(ethogram(recording(name), of_video(model.said, name), path, of_video(model.truth, name)))
    if (row := _bout(model)) is not None:
        tracks = recording(row[0]).tracks
        title = f"{row[3]}: {row[1]}" + ("" if row[2] == "self" else f" to {row[2]}")
        drawn.append(scenes.strip(tracks, row, folder / f"{split}_bout.png", title=title))
    return drawn


def of_prediction(recordings: Sequence[Recording], said: Bouts, folder: Path) -> list[Path]:
    """An ethogram of each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"ethogram_{file_name(one.name)}.png" for one in recordings]
    return [
        ethogram(one, of_video(said, one.name), path, one.bouts if len(one.bouts) else None)
        for one, path in zip(recordings, paths, strict=True)
    ]


def animated(recordings: Sequence[Recording], said: Bouts, most: int, folder: Path) -> list[Path]:
    """GIFs of some bouts: of each action the median one by length, then the next ones."""
    folder.mkdir(parents=True, exist_ok=True)
    tracks = {one.name: one.tracks for one in recordings}
    of_action: dict[str, list[Row]] = {}
    for row in sorted(said.rows, key=lambda row: (row[5] - row[4]) / tracks[row[0]].fps):
        of_action.setdefault(row[3], []).append(row)
    turns = itertools.zip_longest(*(_from_the_middle(of_action[action]) for action in sorted(of_action)))
    chosen = [row for turn in turns for row in turn if row is not None][:most]
    paths = []
    for row in chosen:
        name = f"bout_{file_name(row[0])}_{row[3]}_{row[1]}_{row[2]}_{row[4]}.gif"
        paths.append(scenes.animation(tracks[row[0]], row, folder / name))
    return paths


def _from_the_middle(rows: Sequence[Row]) -> list[Row]:
    return [rows[k] for k in sorted(range(len(rows)), key=lambda k: abs(k - len(rows) // 2))]


def ethogram(one: Recording, said: Bouts, path: Path, truth: Bouts | None) -> Path:
    """What was annotated and predicted in a recording."""
    labeled: Sequence[Behaviour] = one.labeled
    tracks = one.tracks
    return drawings.ethogram(
        truth, said, labeled, path, video=one.name, fps=tracks.fps, seconds=tracks.seconds, title=one.name
    )


def of_video(table: Bouts, name: str) -> Bouts:
    """The bouts of one video."""
    return table.take(table.video == name)


def _labs(path: Path, model: Outcome, oracle: Outcome | None) -> Path:
    names = sorted(model.score.labs)
    estimates = [model.of_lab(name).estimate() for name in names]
    bounds = np.array([[one.low, one.value, one.high] for one in estimates], np.float64)
    marks = {} if oracle is None else {"oracle": [oracle.score.labs.get(name, np.nan) for name in names]}
    return drawings.labs(names, bounds[:, 1], bounds[:, 0], bounds[:, 2], path, marks=marks)


def _richest(truth: Bouts) -> list[str]:
    """Videos by how many kinds of behaviour they have, then by bouts."""
    names = list(dict.fromkeys(truth.video.tolist()))
    kinds = {name: len(set(truth.action[truth.video == name].tolist())) for name in names}
    return sorted(names, key=lambda name: (-kinds[name], -int((truth.video == name).sum())))


def _bout(model: Outcome) -> Row | None:
    """Of the predicted bouts of one animal to another that last long enough, the median one by length."""

    def seconds(row: Row) -> float:
        return (row[5] - row[4]) / model.annotations[row[0]].fps

    found = [row for row in model.said.rows if seconds(row) >= LONG_ENOUGH and row[2] != "self"]
    found.sort(key=seconds)
    return found[len(found) // 2] if found else None
