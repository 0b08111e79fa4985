"""Names of body parts. Laboratories have their own for the same places; here they have the Kaggle challenge's."""

from __future__ import annotations

import re

from shared_core.errors import UserError

MIDDLE = (
    *("nose", "head", "neck", "body_center", "spine_1", "spine_2", "tail_base", "tail_midpoint"),
    *("tail_middle_1", "tail_middle_2", "tail_tip"),
)
SIDES = ("ear", "shoulder", "lateral", "hip", "forepaw", "hindpaw")
HEADPIECE = tuple(
    f"headpiece_{level}{end}{side}"
    for level in ("bottom", "top")
    for end in ("back", "front")
    for side in ("left", "right")
)
PARTS = (*MIDDLE, *(f"{part}_{side}" for part in SIDES for side in ("left", "right")), *HEADPIECE)
# what others call them, without side and in lower case
_CALLED = {
    "center": "body_center",
    "centre": "body_center",
    "center_back": "body_center",
    "centroid": "body_center",
    "body_centre": "body_center",
    "bodycenter": "body_center",
    "tailbase": "tail_base",
    "base_tail": "tail_base",
    "base_of_tail": "tail_base",
    "tail_end": "tail_tip",
    "tailtip": "tail_tip",
    "tail_middle": "tail_midpoint",
    "tail_mid": "tail_midpoint",
    "tail_1": "tail_middle_1",
    "tail_2": "tail_middle_2",
    "snout": "nose",
    "lat": "lateral",
    "bhip": "hip",
    "fhip": "shoulder",
    "front_paw": "forepaw",
    "rear_paw": "hindpaw",
    "hind_paw": "hindpaw",
    "fore_paw": "forepaw",
}
# a mouse, seen from above: what is drawn as its outline, from the nose around
STD7 = ("nose", "ear_left", "ear_right", "neck", "hip_left", "hip_right", "tail_base")


def named(part: str, where: str = "bodypart") -> str:
    """The name of a part, whatever a laboratory calls it: `Left_ear`, `ear.left` and `earLeft` are `ear_left`.

    Raises UserError for a part that is none of `PARTS`.
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s.\-]+", "_", part.strip()).lower().strip("_")
    if words in PARTS:
        return words
    sides = [word for word in ("left", "right") if word in words.split("_")]
    rest = "_".join(word for word in words.split("_") if word not in sides)
    rest = _CALLED.get(rest, rest)
    found = f"{rest}_{sides[0]}" if len(sides) == 1 else rest
    if found not in PARTS:
        raise UserError(f"{where}: {part!r} is no body part that is known; must be one of {', '.join(PARTS[:20])}, ...")
    return found
