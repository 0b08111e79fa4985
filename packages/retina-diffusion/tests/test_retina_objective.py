"""What training hides from the network."""

import torch

from retina_diffusion import objective
from retina_diffusion.captions import NULL
from retina_diffusion.model import Condition
from retina_diffusion.model_config import Flow


def shares(wanted: Flow, count: int = 40_000) -> tuple[float, float, float]:
    """Of images without masks alone, without caption alone, without both."""
    torch.manual_seed(0)
    words = torch.full((count, 1), NULL + 1)
    asked = Condition(torch.zeros(count, 2, 1, 1), torch.ones(count, 2, dtype=torch.bool), words_BS=words)
    found = objective.hidden(asked, wanted)
    assert found.words_BS is not None
    masks, text = ~found.known_BM.any(dim=1), (found.words_BS == NULL).all(dim=1)
    assert torch.equal(found.known_BM.any(dim=1), found.known_BM.all(dim=1))
    return tuple(float(one.float().mean()) for one in (masks & ~text, text & ~masks, masks & text))  # type: ignore[return-value]


def test_masks_captions_and_both_are_hidden_as_often_as_the_settings_say() -> None:
    """Guidance leans on what the network says knowing neither, which must have been trained."""
    for wanted in (Flow(), Flow(mask_dropout=0.2, text_dropout=0.05, both_dropout=0.3), Flow(both_dropout=0.0)):
        found = shares(wanted)
        expected = (wanted.mask_dropout, wanted.text_dropout, wanted.both_dropout)
        assert max(abs(one - other) for one, other in zip(found, expected, strict=True)) < 0.01
    assert shares(Flow(mask_dropout=0, text_dropout=0, both_dropout=0)) == (0, 0, 0)
