"""What predictions are worth beside the official score: by frame, by bout, and how sure the score itself is.

Shapes: T frames, C classes, V videos, A actions of a lab, R resamples, N actions that are confused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mabe_behavior import metric
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import calms21 as files
from mabe_behavior.metric import NO_FRAMES, Counts, Score
from mabe_behavior.streams import UNKNOWN, Stream
from shared_core.intervals import Estimate

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
NONE = "none"  # no action


def frames(score: Score) -> dict[str, Counts]:
    """Of each action, over the frames of all labs that the official score counts."""
    found: dict[str, Counts] = {}
    for of_lab in score.counts.values():
        for action, count in of_lab.items():
            found[action] = found.get(action, NO_FRAMES) + count
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Calms21:
    """The CalMS21 challenge's numbers, task 1 and 2: the mean over attack, investigation and mount ranks."""

    f1: Mapping[str, float]
    ap: Mapping[str, float]

    @property
    def mean_f1(self) -> float:
        return float(np.mean(list(self.f1.values())))

    @property
    def mean_ap(self) -> float:
        return float(np.mean(list(self.ap.values())))


def calms21(y_T: ArrayLike, p_TC: ArrayLike, said_T: ArrayLike | None = None) -> Calms21:
    """F1 and average precision of each behaviour, over all test frames together (Sun et al. 2021); "other" has none.

    Args:
        y_T: classes, numbered as in `formats.calms21.VOCABULARY`.
        p_TC: probabilities of the classes, a column each; of any scale, as for AP only their order counts.
        said_T: classes that were said, with smoothing and thresholds; None: those of the largest probability.

    A behaviour that is never there has an average precision of 0, one that is neither there nor said an F1 of 0.

    Raises ValueError for shapes that do not match, no frame, or classes that are none.
    """
    y, p = np.asarray(y_T), np.asarray(p_TC, np.float64)
    said = p.argmax(axis=-1) if said_T is None else np.asarray(said_T)
    classes = len(files.VOCABULARY)
    if y.ndim != 1 or not len(y) or p.shape != (len(y), classes) or said.shape != y.shape:
        raise ValueError(f"calms21: y {y.shape}, p {p.shape}, said {said.shape}; must be (T,), (T, {classes}), (T,)")
    if not np.isin(y, range(classes)).all() or not np.isin(said, range(classes)).all():
        raise ValueError(f"calms21: classes must lie in 0..{classes - 1}")
    f1, ap = {}, {}
    for action in files.ACTIONS:
        k = files.VOCABULARY[action]
        there, found = y == k, said == k
        f1[action] = Counts(int((there & found).sum()), int((there & ~found).sum()), int((found & ~there).sum())).f1
        ap[action] = average_precision(there, p[:, k])
    return Calms21(f1, ap)


def average_precision(there_T: ArrayLike, score_T: ArrayLike) -> float:
    """The sum over thresholds of precision times the rise in recall, equal scores together; 0 where nothing is there.

    As scikit-learn has it: without interpolation (Davis and Goadrich 2006).
    """
    there, score = np.asarray(there_T, bool), np.asarray(score_T, np.float64)
    if not there.any():
        return 0.0
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of equal scores
    hits, said = np.cumsum(there[order])[last], np.flatnonzero(last) + 1
    return float((hits / said) @ np.diff(hits, prepend=0) / there.sum())


@dataclass(frozen=True)
class Found:
    """What an action's bouts were worth. A share of nothing is 0."""

    true: int  # bouts that are there
    predicted: int
    matched: int  # one to one
    hit: int  # true ones of which at least half the frames are predicted
    right: int  # predicted ones of which at least half the frames are true

    @property
    def f1(self) -> float:
        return 2 * self.matched / max(self.true + self.predicted, 1)

    @property
    def hit_share(self) -> float:
        return self.hit / max(self.true, 1)

    @property
    def right_share(self) -> float:
        return self.right / max(self.predicted, 1)


def total(found: Mapping[str, Found]) -> Found:
    """All actions together."""
    names = ("true", "predicted", "matched", "hit", "right")
    return Found(*(sum(getattr(one, name) for one in found.values()) for name in names))


def found(truth: Bouts, predicted: Bouts, labeled: Mapping[str, Collection[Behaviour]]) -> dict[str, Found]:
    """Of each action, how many bouts were found.

    A bout is a stretch of frames without a gap, of one video, agent, target and action. A true and a predicted one are
    matched where their intersection over union is a half or more, each with one other at most, and as many as can
    be. Besides, each side is judged alone, as vassi does (Nührenberg et al. 2025), which gives a bout the category that
    overlaps it longest; here at least half of its frames must have its own.

    Args:
        labeled: what was looked for in each video; predictions of anything else do not count. Other than in the
            official score, those in a video without true bouts do.
    """
    looked = {(video, *one) for video, of in labeled.items() for one in of}
    counted = predicted.take(np.array([row[:4] in looked for row in predicted.rows], bool))
    keys = {key: k for k, key in enumerate(sorted({row[:4] for row in (*truth.rows, *counted.rows)}))}
    room = 2 + int(max([0, *truth.stop.tolist(), *counted.stop.tolist()]))
    one, other = _united(truth, keys, room), _united(counted, keys, room)
    i, j, shared = _overlaps(one, other)
    (start_1, stop_1), (start_2, stop_2) = one, other
    length_1, length_2 = stop_1 - start_1, stop_2 - start_2
    close = 2 * shared >= length_1[i] + length_2[j] - shared
    matched = _matching(i[close], j[close], len(start_1), len(start_2))
    hit = 2 * np.bincount(i, shared, len(start_1)) >= length_1
    right = 2 * np.bincount(j, shared, len(start_2)) >= length_2
    actions = sorted({key[3] for key in keys})
    number_K = np.array([actions.index(key[3]) for key in keys], np.int64)
    counts = [
        np.bincount(number_K[start[chosen] // room], minlength=len(actions)).tolist()
        for start, chosen in (
            (start_1, slice(None)),
            (start_2, slice(None)),
            (start_1, matched),
            (start_1, hit),
            (start_2, right),
        )
    ]
    return {action: Found(*values) for action, *values in zip(actions, *counts, strict=True)}


def _united(table: Bouts, keys: Mapping[tuple[str, str, str, str], int], room: int) -> tuple[Ints, Ints]:
    """(starts, stops) of the stretches of frames of all keys, one key's after another's on one line."""
    shift = room * np.array([keys[row[:4]] for row in table.rows], np.int64)
    order = np.argsort(table.start + shift, kind="stable")
    order = order[(table.stop > table.start)[order]]
    start, stop = (table.start + shift)[order], np.maximum.accumulate((table.stop + shift)[order])
    new = np.append(True, start[1:] > stop[:-1])[: len(start)]
    last = np.append(new[1:], True)[: len(start)]
    return start[new], stop[last]


def _overlaps(one: tuple[Ints, Ints], other: tuple[Ints, Ints]) -> tuple[Ints, Ints, Ints]:
    """(i, j, frames) of all pairs of stretches that share a frame."""
    first = np.searchsorted(other[1], one[0], side="right")  # the first that stops after the start
    count = np.maximum(np.searchsorted(other[0], one[1], side="left") - first, 0)
    i = np.repeat(np.arange(len(count)), count)
    j = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return i, j, np.minimum(one[1][i], other[1][j]) - np.maximum(one[0][i], other[0][j])


def _matching(i: Ints, j: Ints, ones: int, others: int) -> Ints:
    """Those of the first side that have a partner in a largest matching."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not ones or not others:
        return np.empty(0, np.int64)
    graph = csr_matrix((np.ones(len(i)), (i, j)), shape=(ones, others))
    return np.flatnonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0)


@dataclass(frozen=True)
class Confusion:
    """Frames of each true action (rows) that were said to be each action (columns)."""

    actions: tuple[str, ...]  # of rows and columns; the last is "none"
    frames_NN: Ints


def confusion(streams: Iterable[Stream], bouts: Bouts) -> Confusion:
    """What was taken for what, pairs and animals alone together; only frames in which both could be known count.

    A frame takes part where somebody looked for an action, and for the one that is said, if any. It counts once: with
    several true actions as the one that was said, else as the first by name. Of two said at once, which the official
    score refuses, the later in the table counts.

    Raises ValueError for streams without truth or a bout past a stream's end.
    """
    given = list(streams)
    names = (*sorted({action for one in given for action in one.actions}), NONE)
    rows_of: dict[tuple[str, str, str], list[tuple[str, int, int]]] = {}
    for video, agent, target, action, start, stop in bouts.rows:
        rows_of.setdefault((video, agent, target), []).append((action, start, stop))
    total = np.zeros((len(names), len(names)), np.int64)
    for stream in given:
        none, y_TK, every_T = len(stream.actions), stream.truth_TK, np.arange(len(stream))
        said_T = np.full(len(stream), none)
        for action, start, stop in rows_of.get((stream.video, stream.agent, stream.target), ()):
            if action not in stream.actions or stop > len(stream):
                raise ValueError(f"{stream}: {action}, frames {start} to {stop}, is not of this stream")
            said_T[start:stop] = stream.actions.index(action)
        true_TK = np.pad(y_TK == 1, ((0, 0), (0, 1)))
        known_TK = np.pad(y_TK != UNKNOWN, ((0, 0), (0, 1)))
        known_TK[:, none] = known_TK.any(axis=1)
        place_K = np.array([names.index(action) for action in (*stream.actions, NONE)])
        by_name = np.argsort(place_K)
        first_T = by_name[true_TK[:, by_name].argmax(axis=1)]
        row_T = np.where(true_TK[every_T, said_T], said_T, np.where(true_TK.any(axis=1), first_T, none))
        counts = known_TK[every_T, said_T]
        np.add.at(total, (place_K[row_T[counts]], place_K[said_T[counts]]), 1)
    return Confusion(names, total)


def interval(
    truth: Bouts,
    predicted: Bouts,
    lab_of: Mapping[str, str],
    labeled: Mapping[str, Collection[Behaviour]],
    resamples: int = 1000,
    recording_of: Mapping[str, str] | None = None,
) -> Estimate:
    """The official score with a 95 % percentile bootstrap interval over recordings, drawn anew within each lab.

    Labs stay as they are: the interval is for other recordings of these labs, not for other labs. A lab with a single
    recording adds nothing to its width, which is then too small. The interval is widened to contain the score.

    Args:
        truth, predicted, lab_of, labeled: as of `metric.score`.
        recording_of: the recording of each video, where several are of one (the same film, annotated twice); None:
            each is one.

    Raises ValueError as `metric.score` does, and for fewer than one resample.
    """
    one = _draws(truth, predicted, lab_of, labeled, resamples, recording_of)
    return one.estimate(one.value, one.values_R)


def difference(
    truth: Bouts,
    predicted: Bouts,
    other: Bouts,
    lab_of: Mapping[str, str],
    labeled: Mapping[str, Collection[Behaviour]],
    resamples: int = 1000,
    recording_of: Mapping[str, str] | None = None,
) -> Estimate:
    """The score less that of other predictions of the same videos, both on the same draws of recordings.

    Arguments, errors and what the interval is for: as of `interval`.
    """
    one, two = (_draws(truth, said, lab_of, labeled, resamples, recording_of) for said in (predicted, other))
    return one.estimate(one.value - two.value, one.values_R - two.values_R)


@dataclass(frozen=True)
class _Draws:
    """The score, and what it is when recordings are drawn anew."""

    value: float
    values_R: Doubles
    videos: int
    method: str

    def estimate(self, value: float, values_R: Doubles) -> Estimate:
        low, high = (float(bound) for bound in np.quantile(values_R - value, [0.025, 0.975]))
        return Estimate(value, value + min(0.0, low), value + max(0.0, high), self.videos, self.method)


def _draws(
    truth: Bouts,
    predicted: Bouts,
    lab_of: Mapping[str, str],
    labeled: Mapping[str, Collection[Behaviour]],
    resamples: int,
    recording_of: Mapping[str, str] | None,
) -> _Draws:
    """The same draws for the same truth, whatever is predicted."""
    if resamples < 1:
        raise ValueError(f"resamples: {resamples}; must be 1 or more")
    videos = set(truth.video.tolist())
    whole = metric.score(truth, predicted, lab_of, labeled)
    of_video = metric.score(truth, predicted, {video: video for video in videos}, labeled).counts
    rng, values_R = np.random.default_rng(0), np.zeros(resamples)
    count = single = 0
    for lab in sorted(whole.counts):
        mine = sorted(video for video in videos if lab_of[video] == lab)
        units = [recording_of[video] if recording_of is not None else video for video in mine]
        count += len(set(units))
        single += len(set(units)) == 1
        values_R += _resampled(units, [of_video[video] for video in mine], resamples, rng)
    labs = f"{len(whole.counts)} lab{'s' if len(whole.counts) > 1 else ''}"
    method = f"bootstrap 95 % over {count:,} recordings within {labs}"
    if single:
        method += f", {single} of which {'has' if single == 1 else 'have'} a single one, so that it is too narrow"
    return _Draws(whole.value, values_R / len(whole.counts), len(videos), method)


def _resampled(
    units: Sequence[str], of_video: Sequence[Mapping[str, Counts]], resamples: int, rng: np.random.Generator
) -> Doubles:
    """(R,) a lab's score when its recordings are drawn anew; of each draw over the actions that occur in it."""
    actions = sorted({action for of in of_video for action in of})
    names, unit_V = np.unique(np.asarray(units), return_inverse=True)
    parts_U = np.zeros((len(names), 3, len(actions)))  # hits; twice the hits plus errors; whether the action counts
    for unit, of in zip(unit_V.tolist(), of_video, strict=True):
        for k, action in enumerate(actions):
            if (one := of.get(action)) is not None:
                parts_U[unit, :, k] += one.hit, 2 * one.hit + one.missed + one.invented, 1
    drawn_RU = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    hit_RA, all_RA, counts_RA = np.moveaxis(np.tensordot(drawn_RU.astype(float), parts_U, axes=1), 1, 0)
    f_RA = 2 * hit_RA / np.maximum(all_RA, 1)
    return f_RA.sum(axis=1) / (counts_RA > 0).sum(axis=1)
