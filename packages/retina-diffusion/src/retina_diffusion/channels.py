"""The classes that masks have, one channel each, in this order."""

from typing import Literal

Channel = Literal["MA", "HE", "EX", "SE", "OD", "vessel", "FOV"]
CHANNELS: tuple[Channel, ...] = ("MA", "HE", "EX", "SE", "OD", "vessel", "FOV")
WORDS = {
    "MA": "microaneurysms",
    "HE": "haemorrhages",
    "EX": "hard exudates",
    "SE": "soft exudates",
    "OD": "optic disc",
    "vessel": "vessels",
    "FOV": "field of view",
}
LESIONS = ("MA", "HE", "EX", "SE")
