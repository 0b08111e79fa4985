"""A colour for each action, the same in every figure.

The actions that most labs look for have colours that differ for colour-blind readers too, by 15 or more in CIELAB (as
seen without red or without green receptors, Machado et al. 2009): Okabe and Ito's, darker or lighter where they would
meet. Rarer ones are shades of a kindred action's colour.
"""

from __future__ import annotations

COMMON = {
    "sniff": "#0072b2",
    "sniffface": "#56b4e9",
    "sniffgenital": "#003a5c",
    "sniffbody": "#b0d9f3",
    "attack": "#d55e00",
    "mount": "#cc79a7",
    "chase": "#e69f00",
    "follow": "#f5d08a",
    "escape": "#00543d",
    "approach": "#1dbf8d",
    "selfgroom": "#6b4515",
    "rear": "#ebdd2b",
    "run": "#0d0d0d",
    "rest": "#6d6d6d",
}
KIN = {  # of which of them rarer actions are shades
    "sniff": ("reciprocalsniff",),
    "attack": ("tussle", "defend", "chaseattack", "dominance", "flinch"),
    "mount": ("intromit", "attemptmount", "dominancemount", "ejaculate"),
    "chase": ("shepherd",),
    "approach": ("avoid", "disengage", "submit"),
    "selfgroom": ("allogroom", "genitalgroom", "dominancegroom"),
    "rear": ("climb", "dig", "exploreobject", "biteobject"),
    "rest": ("freeze", "huddle"),
}
OTHER = "#c9ced4"  # of what is no action, or was not looked for
_MIXED = (0.3, -0.3, 0.55, -0.5, 0.15)  # how much white (above 0) or black is in the shades


def _shade(hue: str, mixed: float) -> str:
    """The colour, lighter or darker."""
    towards = 255 if mixed > 0 else 0
    channels = (int(hue[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(channel + abs(mixed) * (towards - channel)):02x}" for channel in channels)


COLOUR_OF: dict[str, str] = {}  # kindred actions beside each other
for _action, _hue in COMMON.items():
    COLOUR_OF[_action] = _hue
    COLOUR_OF |= {kin: _shade(_hue, mixed) for kin, mixed in zip(KIN.get(_action, ()), _MIXED, strict=False)}


def colour(action: str) -> str:
    """The colour of an action, as #rrggbb; grey for one that is not known."""
    return COLOUR_OF.get(action, OTHER)
