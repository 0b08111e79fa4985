"""Simulated laboratories: what they keep, film and look for. No two agree, as those of the Kaggle challenge do not.

Every action is looked for in two laboratories at least: who trains without one of them still meets all its actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mabe_behavior.actions import SELF, Behaviour
from mabe_behavior.parts import STD7
from mabe_behavior.simulation.annotators import Annotator
from mabe_behavior.simulation.arenas import Arena
from mabe_behavior.simulation.filming import Filming
from mabe_behavior.simulation.intentions import Temperament
from mabe_behavior.simulation.rules import ALONE, PRECEDENCE, SNIFFS, Rules


@dataclass(frozen=True)
class Lab:
    """One laboratory: mice in an arena, filmed, tracked and annotated."""

    name: str
    arena: Arena
    camera: Filming
    actions: tuple[str, ...]  # which it looks for
    mice: int = 2
    agents: int = 3  # of the first so many mice it marks what they do
    temperament: Temperament = field(default_factory=Temperament)
    rules: Rules = field(default_factory=Rules)
    annotator: Annotator = field(default_factory=Annotator)

    def __post_init__(self) -> None:
        if unknown := set(self.actions) - {*PRECEDENCE, *ALONE}:
            raise ValueError(f"actions: no {', '.join(sorted(unknown))}; must be of {', '.join((*PRECEDENCE, *ALONE))}")
        if SNIFFS[0] in self.actions and set(SNIFFS[1:]) & set(self.actions):
            raise ValueError("actions: sniff and kinds of it; must be one or the other, a pair does one at a time")
        if not self.actions or self.agents < 1:
            raise ValueError(f"actions {self.actions}, agents {self.agents}; must be one action and one agent or more")

    @property
    def labeled(self) -> tuple[Behaviour, ...]:
        """What its annotators look for."""
        names = [f"mouse{k + 1}" for k in range(self.mice)]
        return tuple(
            Behaviour(agent, target, action)
            for agent in names[: self.agents]
            for target in (SELF, *names)
            for action in self.actions
            if target != agent and (target == SELF) == (action in ALONE)
        )


_CENTRED = ("body_center", "ear_left", "ear_right", "lateral_left", "lateral_right", "nose", "tail_base", "tail_tip")
_MANY = (*STD7, "spine_1", "body_center", "spine_2", "tail_middle_1", "tail_tip")
_FEW = ("body_center", "ear_left", "ear_right", "nose", "tail_base")

LABS = (
    Lab(  # a resident and an intruder; only the resident's doings are marked
        "resident",
        Arena(38, 25),
        Filming(30, 18.33, STD7, noise=0.07, lost=0.005, hidden=0.05),
        ("attack", "mount", "sniff", "approach"),
        agents=1,
        temperament=Temperament(
            meeting={"sniff face": 2, "sniff body": 2, "sniff rump": 3, "attack": 2, "mount": 4.5, "chase": 0.5}
        ),
    ),
    Lab(  # a large box, its walls far apart; the tracker loses frames
        "openfield",
        Arena(45, 45),
        Filming(25, 14.5, STD7, noise=0.12, lost=0.02, dropped=0.01, sure=True),
        ("approach", "chase", "escape", "follow", "mount", "rear", "run", "selfgroom", "sniff"),
        temperament=Temperament(
            alone={"explore": 5, "pause": 3, "dash": 0.6, "rest": 0.7, "rear": 1.5, "selfgroom": 1.2},
            meeting={"sniff face": 3, "sniff body": 3, "sniff rump": 3, "attack": 1.5, "mount": 2, "chase": 1.2},
        ),
    ),
    Lab(  # a round tub; wide ideas of what a chase is; tells apart where one sniffs
        "tub",
        Arena(40, 40, "circular"),
        Filming(60, 16.0, _CENTRED, noise=0.06, lost=0.03, sure=True),
        ("attack", "chase", "escape", "follow", "rest", "sniffbody", "sniffface", "sniffgenital"),
        temperament=Temperament(
            alone={"explore": 5, "pause": 3, "dash": 0.6, "rest": 1.0, "rear": 1.5, "selfgroom": 0.8}
        ),
        rules=Rules(chasing=12.0, running=17.0, least=0.25, contact=2.4),
        annotator=Annotator(border=0.10, late=0.02),
    ),
    Lab(  # few parts at a high rate; strict about contact
        "fast",
        Arena(50, 30),
        Filming(120, 10.9, ("ear_left", "ear_right", "nose", "tail_base", "tail_tip"), noise=0.1, bias=0.15),
        ("approach", "attack", "escape", "rear", "sniff"),
        rules=Rules(contact=1.7, turning=5.5, reach=12.0),
        annotator=Annotator(border=0.10, overlooked=0.1),
    ),
    Lab(  # ten frames a second, close to what a fight shakes at
        "slow",
        Arena(40, 40),
        Filming(10, 15.3, STD7, noise=0.1, lost=0.01, hidden=0.2),
        ("attack", "chase", "sniff"),
        rules=Rules(contact=2.5, bridge=0.4, trail=14.0),
        temperament=Temperament(
            meeting={"sniff face": 2, "sniff body": 2, "sniff rump": 2, "attack": 2, "chase": 3}, sociable=0.45
        ),
        annotator=Annotator(border=0.15, late=0.05, overlooked=0.2),
    ),
    Lab(  # near and sharp; tells apart where one sniffs
        "kinds",
        Arena(42, 32),
        Filming(45, 21.0, _MANY, noise=0.05, lost=0.01),
        ("attack", "mount", "selfgroom", "sniffbody", "sniffface", "sniffgenital"),
        temperament=Temperament(
            alone={"explore": 5, "pause": 3, "dash": 0.6, "rest": 0.7, "rear": 1.5, "selfgroom": 1.2},
            meeting={"sniff face": 3, "sniff body": 3, "sniff rump": 3, "attack": 1.5, "mount": 1.5, "chase": 1},
        ),
        annotator=Annotator(border=0.10),
    ),
    Lab(  # three mice in a large box, filmed from far
        "three",
        Arena(60, 45),
        Filming(30, 9.7, _FEW, noise=0.15, bias=0.15, lost=0.04, hidden=0.2, dropped=0.005, sure=True),
        ("approach", "attack", "chase", "rear", "rest", "run", "sniff"),
        mice=3,
        temperament=Temperament(
            alone={"explore": 5, "pause": 3, "dash": 0.6, "rest": 1.2, "rear": 1.5, "selfgroom": 0.8},
            meeting={"sniff face": 3, "sniff body": 3, "sniff rump": 3, "attack": 2, "chase": 3},
            sociable=0.5,
        ),
        rules=Rules(reach=20.0, facing=60.0, running=17.0),
        annotator=Annotator(border=0.15, overlooked=0.2),
    ),
)


def lab(name: str) -> Lab:
    """The laboratory of that name. Raises ValueError where there is none."""
    for one in LABS:
        if one.name == name:
            return one
    raise ValueError(f"lab {name!r}; must be one of {', '.join(one.name for one in LABS)}")
