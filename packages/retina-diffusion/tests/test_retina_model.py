"""NextDiT: published sizes and names, an identity at the start, masks that change nothing until they are learned."""

import dataclasses

import pytest
import torch

from retina_diffusion import patches, rope
from retina_diffusion.nextdit import LUMINA_2B, NextDiT, Shape

TINY = Shape(32, 2, 4, 2, patch=4, caption_dim=16, masks=2, multiple_of=16)


def on_paper(shape: Shape) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: weight.shape for name, weight in NextDiT(shape).state_dict().items()}


def count(shape: Shape) -> int:
    return sum(size.numel() for size in on_paper(shape).values())


def test_lumina_has_its_published_tensors() -> None:
    found = on_paper(LUMINA_2B)
    assert len(found) == 567 and count(LUMINA_2B) == 1_627_386_400
    assert found["layers.23.attention.wk_y.weight"] == (576, 2048)
    assert found["layers.0.adaLN_modulation.1.weight"] == (9216, 1024)
    assert found["final_layer.linear.weight"] == (32, 2304) and found["x_embedder.weight"] == (2304, 16)


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        (dataclasses.replace(LUMINA_2B, kv_heads=32), 1_988_524_576),
        (dataclasses.replace(LUMINA_2B, kv_heads=32, caption_dim=5120, qk_norm=False), 2_331_157_024),
        (Shape(768, 12, 12, 12, 2, 768, channels=4), 129_537_184),
        (Shape(768, 12, 12, 12, 2, 768, channels=4, qk_norm=False), 129_481_888),
        (Shape(384, 12, 6, 6, 2, 2048, channels=4), 48_473_432),
    ],
)
def test_other_published_sizes(shape: Shape, parameters: int) -> None:
    assert count(shape) == parameters


def asked(model: NextDiT, seed: int = 0, side: int = 16, **changed: torch.Tensor) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    given = {
        "x_BCHW": torch.randn(3, 3, side, side, generator=made),
        "t_B": torch.rand(3, generator=made),
        "caption_BSD": torch.randn(3, 5, 16, generator=made),
        "masks_BMHW": torch.rand(3, 2, side, side, generator=made),
        **changed,
    }
    return model(**given)


def lively(shape: Shape = TINY) -> NextDiT:
    """A model whose gates are open."""
    torch.manual_seed(0)
    model = NextDiT(shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def test_it_starts_at_zero_and_learns_everything() -> None:
    assert not asked(NextDiT(TINY)).any()
    model = lively()
    asked(model).square().sum().backward()
    without = {name for name, weight in model.named_parameters() if not weight.grad.any()}
    assert without == {"pad_token", "unknown_MD"}  # nothing was padded, all channels were known
    model.zero_grad()
    there, known = torch.arange(16).expand(3, 16) < 12, torch.tensor([[True, False], [False, True], [True, True]])
    asked(model, there_BL=there, known_BM=known).square().sum().backward()
    without = {name for name, weight in model.named_parameters() if not weight.grad.any()}
    assert without == {"pad_token"}  # tokens that are not there have no effect, which is the point of them


def test_text_and_masks_and_time_matter() -> None:
    model = lively()
    plain = asked(model)
    for changed in (
        {"caption_BSD": torch.zeros(3, 5, 16)},
        {"masks_BMHW": torch.zeros(3, 2, 16, 16)},
        {"t_B": torch.zeros(3)},
    ):
        assert not torch.allclose(asked(model, **changed), plain, atol=1e-4)


def test_tokens_that_are_not_there_do_not_matter() -> None:
    model, said = lively(), torch.tensor([[True] * 3 + [False] * 2] * 3)
    torch.manual_seed(1)
    caption = torch.randn(3, 5, 16)
    other = torch.where(said[..., None], caption, torch.randn(3, 5, 16))
    first, second = (asked(model, caption_BSD=one, said_BS=said) for one in (caption, other))
    torch.testing.assert_close(first, second)


def test_a_caption_of_no_tokens_is_an_answer() -> None:
    assert asked(lively(), said_BS=torch.zeros(3, 5, dtype=torch.bool)).isfinite().all()


def test_unknown_is_not_absent() -> None:
    model, nothing = lively(), torch.zeros(3, 2, 16, 16)
    half = torch.tensor([[True, False]] * 3)
    absent, first_known, unknown = (
        asked(model, masks_BMHW=nothing, known_BM=known) for known in (None, half, half & False)
    )
    assert not torch.allclose(absent, first_known, atol=1e-4)
    assert not torch.allclose(first_known, unknown, atol=1e-4)
    torch.testing.assert_close(asked(model, masks_BMHW=None), unknown)
    torch.testing.assert_close(asked(model, masks_BMHW=nothing, known_BM=half | True), absent)


def test_what_an_unknown_mask_shows_does_not_matter() -> None:
    model, known = lively(), torch.tensor([[True, False]] * 3)
    shown = torch.rand(3, 2, 16, 16)
    hidden = shown.clone()
    hidden[:, 1] = torch.nan
    first, second = (asked(model, masks_BMHW=masks, known_BM=known) for masks in (shown, hidden))
    assert torch.equal(first, second)


def test_flash_and_plain_attention_agree() -> None:
    model, plain = lively(), NextDiT(dataclasses.replace(TINY, flash=False))
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(asked(model), asked(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (8, 32)])
def test_any_aspect_ratio(height: int, width: int) -> None:
    x, masks = torch.randn(3, 3, height, width), torch.rand(3, 2, height, width)
    assert asked(lively(), x_BCHW=x, masks_BMHW=masks).shape == x.shape


def padded(image: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image with noise at the right and the bottom, and which of the tokens of the whole are its own."""
    whole = torch.randn(*image.shape[:2], height, width)
    whole[..., : image.shape[2], : image.shape[3]] = image
    there = torch.zeros(height // TINY.patch, width // TINY.patch, dtype=torch.bool)
    there[: image.shape[2] // TINY.patch, : image.shape[3] // TINY.patch] = True
    return whole, there.flatten()


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("trained_side", [None, 2])
@pytest.mark.parametrize("time", [0.1, 0.9])
def test_an_image_does_not_depend_on_its_padding(kv_heads: int, trained_side: int | None, time: float) -> None:
    model = lively(dataclasses.replace(TINY, kv_heads=kv_heads, trained_side=trained_side))
    torch.manual_seed(1)
    images = [torch.randn(1, 3, *size) for size in ((16, 12), (12, 16), (8, 4))]
    caption, t = torch.randn(3, 5, 16), torch.rand(3)
    filled = [padded(image, 20, 16) for image in images]
    whole, there = torch.cat([x for x, _ in filled]), torch.stack([own for _, own in filled])
    together = model(whole, t, caption, there_BL=there, time=time)
    for i, image in enumerate(images):
        height, width = image.shape[2:]
        alone = model(image, t[i : i + 1], caption[i : i + 1], time=time)
        torch.testing.assert_close(together[i : i + 1, :, :height, :width], alone, atol=1e-5, rtol=1e-5)
        assert not together[i, :, height:].any() and not together[i, :, :, width:].any()


def test_what_rounding_added_to_an_image_makes_it_no_larger_than_those_of_training() -> None:
    """Training asks at late times, sampling at all: for such images they must agree."""
    trained, plain = lively(dataclasses.replace(TINY, trained_side=4)), lively()
    x, caption, t = torch.randn(2, 3, 12, 24), torch.randn(2, 5, 16), torch.rand(2)  # 18 tokens, not 16
    there = torch.arange(2 * 18).view(2, 18) >= 0
    for mask in (None, there):
        early, late = (trained(x, t, caption, there_BL=mask, time=time) for time in (0.1, 1.0))
        torch.testing.assert_close(early, late)
        torch.testing.assert_close(late, plain(x, t, caption, there_BL=mask))
    filled = torch.cat((x, torch.zeros(2, 3, 12, 24)), dim=2)  # padded beyond it
    kept = torch.cat((there, ~there), dim=1)
    early, late = (trained(filled, t, caption, there_BL=kept, time=time) for time in (0.1, 1.0))
    torch.testing.assert_close(early, late)
    torch.testing.assert_close(late[:, :, :12], plain(x, t, caption), atol=1e-5, rtol=1e-5)
    large = torch.randn(2, 3, 20, 20)
    early, late = (trained(large, t, caption, time=time) for time in (0.1, 1.0))
    assert not torch.allclose(early, late, atol=1e-3)


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        model = lively()
        if checkpointing:
            model.gradient_checkpointing_enable()
        calls = []
        model.layers[0].feed_forward.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        asked(model, known_BM=torch.tensor([[True, False]] * 3)).square().sum().backward()
        found.append(({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, len(calls)))
    (plain, once), (recomputed, twice) = found
    assert (once, twice) == (1, 2)
    torch.testing.assert_close(recomputed, plain)


def test_lower_precision_answers_alike() -> None:
    model, everywhere = lively(), torch.ones(3, 16, dtype=torch.bool)
    expected = asked(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = asked(model, known_BM=torch.ones(3, 2, dtype=torch.bool), there_BL=everywhere)
    assert found.dtype is torch.bfloat16
    found.square().mean().backward()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(weight.grad.dtype is torch.float32 for weight in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("padding", [False, True])
def test_compiled_and_eager_agree(padding: bool) -> None:
    """In one graph, forward and backward."""
    model = lively()
    compiled = torch.compile(model, fullgraph=True)
    given = {"known_BM": torch.tensor([[True, False]] * 3)}
    if padding:
        given["there_BL"] = torch.arange(16).expand(3, 16) < 12
    gradients = []
    for which in (model, compiled):
        model.zero_grad()
        answer = asked(which, **given)
        answer.square().mean().backward()
        gradients.append({"answer": answer} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of the patch, 4"):
        asked(lively(), side=18)
    with pytest.raises(ValueError, match="3 channels and 1 masks: must be 3 of the image and 2"):
        asked(lively(), masks_BMHW=torch.zeros(3, 1, 16, 16))
    with pytest.raises(ValueError, match="heads: 6 must divide"):
        dataclasses.replace(TINY, heads=6)


def test_patches_are_whole() -> None:
    x = torch.randn(2, 3, 8, 12)
    tokens = patches.of_image(x, 4)
    assert tokens.shape == (2, 6, 48)
    ends_with_channels = tokens.unflatten(-1, (3, 16)).transpose(-1, -2).flatten(-2)
    assert torch.equal(patches.to_image(ends_with_channels, 8, 12, 4), x)


def test_attention_feels_distances_alone() -> None:
    """The product of two rotated features depends on how far apart they are, in rows and columns."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16).expand(2, 1, 20, 1, 16)
    turned = rope.turns(rope.angles(4, 5, 16))
    product = (rope.rotate(q, turned)[0, :, 0] @ rope.rotate(k, turned)[0, :, 0].T).reshape(4, 5, 4, 5)
    torch.testing.assert_close(product[0, 0, 1, 2], product[2, 1, 3, 3])
    torch.testing.assert_close(product[1, 3, 0, 0], product[3, 4, 2, 1])
    assert not torch.isclose(product[0, 0, 1, 2], product[0, 0, 2, 1])


def test_larger_images_are_scaled() -> None:
    early, late, plain = (rope.angles(8, 8, 16, *how) for how in ((2.0, 0.1), (2.0, 0.9), (1.0, 0.9)))
    torch.testing.assert_close(early, plain / 2)
    torch.testing.assert_close(late[:, :2], plain[:, :2])  # the fastest pair keeps neighbours apart
    assert (late[1:, 2:].sum(dim=1) < plain[1:, 2:].sum(dim=1)).all()
