"""What mice do: the 37 actions of the Kaggle challenge of 2025, and which of them are looked for in a video.

A behaviour is an agent, a target and an action; the target of what a mouse does alone is `self`.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from shared_core.errors import UserError

ALONE = (
    *("biteobject", "climb", "dig", "exploreobject", "freeze", "genitalgroom", "huddle", "rear", "rest", "run"),
    "selfgroom",
)
TOGETHER = (
    *("allogroom", "approach", "attack", "attemptmount", "avoid", "chase", "chaseattack", "defend", "disengage"),
    *("dominance", "dominancegroom", "dominancemount", "ejaculate", "escape", "flinch", "follow", "intromit", "mount"),
    *("reciprocalsniff", "shepherd", "sniff", "sniffbody", "sniffface", "sniffgenital", "submit", "tussle"),
)
ACTIONS = frozenset((*ALONE, *TOGETHER))
SELF = "self"
_MOUSE = re.compile(r"mouse[1-9]\d*")


class Behaviour(NamedTuple):
    """Who does what to whom."""

    agent: str  # mouse1, mouse2, ...
    target: str  # another mouse, or self
    action: str

    def __str__(self) -> str:
        return ",".join(self)


def labeled(text: str | None, where: str = "behaviors_labeled") -> tuple[Behaviour, ...]:
    """The behaviours that annotators looked for in a video, in the list's order and each once.

    Args:
        text: a JSON list such as ``["mouse1,mouse2,sniff", "mouse1,self,rear"]``; empty or None: nobody looked. Stray
            quotes around the parts, as 58 entries of the challenge have them, are dropped.
        where: names the list in messages.

    Raises UserError for what is no such list.
    """
    if not text or not text.strip():
        return ()
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: is not JSON ({error}); must be a list such as {_EXAMPLE}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise UserError(f"{where}: {text[:60]}; must be a list such as {_EXAMPLE}")
    return tuple(dict.fromkeys(behaviour(entry, where) for entry in entries))


_EXAMPLE = '["mouse1,mouse2,sniff", "mouse1,self,rear"]'


def behaviour(text: str, where: str = "behaviour") -> Behaviour:
    """One behaviour of its text. Raises UserError where agent, target or action are none."""
    parts = [part.strip().strip("'\"").strip() for part in text.split(",")]
    if len(parts) != 3 or not all(parts):
        raise UserError(f"{where}: {text!r}; must be AGENT,TARGET,ACTION, such as mouse1,mouse2,sniff")
    agent, target, action = parts
    for name in (agent, *([target] if target != SELF else [])):
        if not _MOUSE.fullmatch(name):
            raise UserError(f"{where}: {text!r} has {name!r}; must be mouse1, mouse2, ... (a target: or self)")
    if target == agent:
        target = SELF
    return Behaviour(agent, target, action)
