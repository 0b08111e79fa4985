"""How good bouts are that were made of probabilities, in the official score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mabe_behavior import measures, metric, postprocessing, streams
from mabe_behavior.bouts import Bouts
from mabe_behavior.metric import Counts, Score
from mabe_behavior.postprocessing import Rules
from mabe_behavior.streams import Stream
from shared_core.intervals import Estimate


@dataclass(frozen=True)
class Outcome:
    """What was said of some annotated videos, and what is true."""

    given: Sequence[Stream]  # with truth
    said: Bouts
    video_of: Mapping[str, str]  # which recordings show the same video: name of the recording -> name of the video

    @classmethod
    def of(cls, given: Sequence[Stream], rules: Rules, video_of: Mapping[str, str]) -> Outcome:
        """What rules make of probabilities."""
        return cls(given, postprocessing.apply_all(given, rules, streams.labeled(given)), video_of)

    @cached_property
    def truth(self) -> Bouts:
        return streams.truth(self.given)

    @cached_property
    def score(self) -> Score:
        """The official score; where nothing is said at all, which it refuses, every frame is missed."""
        if len(self.said):
            return metric.score(self.truth, self.said, streams.labs(self.given), streams.labeled(self.given))
        counts: dict[str, dict[str, Counts]] = {}
        for stream in self.given:
            for k, action in enumerate(stream.actions):
                if there := int((stream.truth_TK[:, k] == 1).sum()):
                    of = counts.setdefault(stream.lab, {})
                    of[action] = Counts(0, of.get(action, Counts(0, 0, 0)).missed + there, 0)
        return Score(counts)

    def estimate(self) -> Estimate:
        """The score with an interval over videos."""
        if not len(self.said):
            return Estimate(0.0, 0.0, 0.0, len(self.video_of), "nothing was said")
        return measures.interval(
            self.truth,
            self.said,
            streams.labs(self.given),
            streams.labeled(self.given),
            recording_of=self.video_of,
        )

    def other(self, said: Bouts) -> Outcome:
        """The same videos with other bouts."""
        return Outcome(self.given, said, self.video_of)
