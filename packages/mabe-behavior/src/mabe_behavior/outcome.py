"""How good bouts are that were made of probabilities, in the official score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mabe_behavior import measures, metric, streams
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts, joined
from mabe_behavior.metric import Score
from mabe_behavior.recording import Annotations
from mabe_behavior.streams import Stream
from shared_core.intervals import Estimate


@dataclass(frozen=True)
class Outcome:
    """What was said of some annotated videos. The truth is what annotators say, also of actions that nobody learned."""

    given: Sequence[Stream]  # probabilities, with truth of the actions that were learned
    said: Bouts
    annotations: Mapping[str, Annotations]  # of every video
    video_of: Mapping[str, str]  # which recordings show the same video: name of the recording -> name of the video

    @cached_property
    def truth(self) -> Bouts:
        return joined([one.bouts for one in self.annotations.values()])

    @property
    def lab_of(self) -> dict[str, str]:
        return {name: one.lab for name, one in self.annotations.items()}

    @property
    def labeled(self) -> dict[str, tuple[Behaviour, ...]]:
        """What was looked for in each video."""
        return {name: one.labeled for name, one in self.annotations.items()}

    @cached_property
    def score(self) -> Score:
        """The official score; where nothing is said at all, which it refuses, every frame is missed."""
        return metric.score(self.truth, self._said(self.said), self.lab_of, self.labeled)

    @property
    def of_learned(self) -> float | None:
        """The score with the truth of learned actions alone; None where that is all of it."""
        truth = streams.truth(self.given)
        if len(truth) == len(self.truth) or not len(truth):
            return None
        return metric.score(truth, self._said(self.said), self.lab_of, self.labeled).value

    def estimate(self) -> Estimate:
        """The score with an interval over videos."""
        said = self._said(self.said)
        return measures.interval(self.truth, said, self.lab_of, self.labeled, recording_of=self.video_of)

    def less(self, other: Outcome) -> Estimate:
        """The score less another one's of the same videos."""
        said, others = self._said(self.said), self._said(other.said)
        return measures.difference(self.truth, said, others, self.lab_of, self.labeled, recording_of=self.video_of)

    def of_lab(self, lab: str) -> Outcome:
        """Of one laboratory's videos."""
        mine = {name: one for name, one in self.annotations.items() if one.lab == lab}
        said = self.said.take(np.array([video in mine for video in self.said.video.tolist()], bool))
        video_of = {name: of for name, of in self.video_of.items() if name in mine}
        return Outcome([one for one in self.given if one.lab == lab], said, mine, video_of)

    def other(self, said: Bouts, given: Sequence[Stream] | None = None) -> Outcome:
        """The same videos with other bouts."""
        return Outcome(self.given if given is None else given, said, self.annotations, self.video_of)

    def _said(self, bouts: Bouts) -> Bouts:
        """Never empty: a bout of what nobody looks for, which the score passes over, stands for nothing."""
        if len(bouts):
            return bouts
        return Bouts.of([(next(iter(self.annotations)), "", "", "", 0, 0)])
