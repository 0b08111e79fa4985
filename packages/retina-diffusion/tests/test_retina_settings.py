"""Settings that cannot be meant are refused, in words; those that mean nothing are not."""

from typing import Any

import pytest
from pydantic import ValidationError

from retina_diffusion.config import Config


def test_squares_need_no_multiple() -> None:
    assert Config.model_validate({"data": {"size": 40}, "model": {"patch": 8}}).token_side == 5
    with pytest.raises(ValidationError, match="multiple: size 40 must be a multiple of it"):
        Config.model_validate({"data": {"size": 40, "aspect": "native"}, "model": {"patch": 8}})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampling": {"guided_from": 0.8, "guided_to": 0.2}}, "guided_from: 0.8 is after guided_to, 0.2"),
        ({"flow": {"mask_dropout": 0.5, "text_dropout": 0.5}}, "mask_dropout: with text_dropout and both_dropout 1.1"),
        ({"text": {"dim": 100}}, "dim: 100 features are no multiple of 3 heads; take a multiple of 32"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config.model_validate(settings)
    Config.model_validate({"text": {"dim": 100, "depth": 0}, "sampling": {"guided_from": 0.2, "guided_to": 0.2}})
