"""PSNR and SSIM against torchmetrics; diversity by cases whose answer is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from retina_diffusion import similarity


def pairs(
    seed: int, noise: float, count: int = 3, height: int = 24, width: int = 31
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 7, generator=draw, dtype=torch.float64) * 2 - 1
    a = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return a, (a + noise * torch.randn(a.shape, generator=draw, dtype=torch.float64)).clamp(-1, 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.floats(0.01, 1))
def test_psnr_and_ssim_are_those_of_torchmetrics(seed: int, noise: float) -> None:
    a, b = pairs(seed, noise)
    places = structural_similarity_index_measure(b + 1, a + 1, data_range=2.0, reduction="none", return_full_image=True)
    ssim = places[1][:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3))  # without the places whose window reaches beyond the image
    psnr = peak_signal_noise_ratio(b, a, data_range=2.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(similarity.ssim(a, b), ssim, rtol=0, atol=1e-9)
    torch.testing.assert_close(similarity.psnr(a, b), psnr.double(), rtol=0, atol=1e-4)


def test_an_image_is_like_itself() -> None:
    a, b = pairs(0, 0.3)
    torch.testing.assert_close(similarity.ssim(a, a), torch.ones(3, dtype=torch.float64))
    assert similarity.psnr(a, a).isinf().all()
    torch.testing.assert_close(similarity.ssim(a, b), similarity.ssim(b, a))
    assert (similarity.ssim(a, b) < 0.9).all()


def test_single_precision_is_enough_for_flat_photographs() -> None:
    """Variances are small differences of squares: the black around the field of view must not make noise of them."""
    a, b = (x / 1000 - 0.99 for x in pairs(1, 0.3))
    torch.testing.assert_close(similarity.ssim(a.float(), b.float()), similarity.ssim(a, b), rtol=0, atol=1e-4)


def test_diversity_is_the_mean_over_all_pairs() -> None:
    a, b = pairs(2, 0.5, count=4)
    images = torch.cat([a[:2], b[:2]])
    found = similarity.diversity(images)
    unlike = [1 - similarity.ssim(images[i : i + 1], images[j : j + 1]).item() for i in range(4) for j in range(i)]
    apart = [(images[i] - images[j]).square().mean().sqrt().item() for i in range(4) for j in range(i)]
    assert found.dissimilarity == pytest.approx(sum(unlike) / 6)
    assert found.difference == pytest.approx(sum(apart) / 6)


def test_diversity_of_one_image_again_and_again_is_nothing() -> None:
    found = similarity.diversity(pairs(3, 0.1)[0][:1].expand(4, -1, -1, -1))
    assert found.dissimilarity == pytest.approx(0, abs=1e-12) and found.difference == 0


def test_diversity_of_two_constants_is_their_difference() -> None:
    flat = torch.stack([torch.full((3, 16, 16), value) for value in (-0.25, 0.5)])
    assert similarity.diversity(flat).difference == pytest.approx(0.75)
    assert math.isclose(similarity.psnr(flat[:1], flat[1:]).item(), 10 * math.log10(4 / 0.75**2), rel_tol=1e-9)


def test_what_cannot_be_compared_is_refused() -> None:
    a, _ = pairs(0, 0.1)
    with pytest.raises(ValueError, match="must be the same"):
        similarity.psnr(a, a[:1])
    with pytest.raises(ValueError, match="11 pixels"):
        similarity.ssim(a[..., :10], a[..., :10])
    with pytest.raises(ValueError, match="two at least"):
        similarity.diversity(a[:1])
