"""The classes that masks have, one channel each, in this order."""

CHANNELS = ("MA", "HE", "EX", "SE", "OD", "vessel", "FOV")
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
