"""The verbs that every package gets for nothing; placeholders are filled in below as the core grows."""

from __future__ import annotations

from shared_core.cli import Verb

ORDER = ("prepare", "plan", "train", "evaluate", "predict", "report", "push", "pull", "launch", "export", "search", "demo")
STANDARD: tuple[Verb, ...] = ()
