"""Pretrained vision models as what sees images for distances: tiny ones, in a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from retina_diffusion import distances, features, judged
from retina_diffusion.config import Config
from retina_diffusion.evaluate import pretrained
from shared_core.errors import UserError

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
MEAN, STD = [0.4, 0.3, 0.2], [0.3, 0.2, 0.1]


def vit(folder: Path) -> Path:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **shape)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return folder


def config(name: Path | str) -> Config:
    return Config.model_validate({"evaluation": {"features": str(name)}})


@pytest.fixture
def images() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=draw)


def test_features_are_the_models_own_pooled_output(tmp_path: Path, images: torch.Tensor) -> None:
    look = pretrained(config(vit(tmp_path)), CPU)
    assert look is not None
    found = judged.each(look, images, CPU)
    model = transformers.ViTModel.from_pretrained(tmp_path)
    light = (images / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        expected = model.eval()(pixel_values=light).pooler_output
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert np.isfinite(distances.beside(found.double().numpy(), found.double().numpy(), 0).floor.mean)


def test_other_sizes_are_scaled_to_the_models(tmp_path: Path) -> None:
    look = pretrained(config(vit(tmp_path)), CPU)
    assert look is not None and look(torch.zeros(2, 3, 50, 40)).shape == (2, 16)


def test_maps_without_a_pooled_output_are_averaged(tmp_path: Path) -> None:
    shape = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    transformers.ResNetModel(transformers.ResNetConfig(**shape)).save_pretrained(tmp_path)
    look = pretrained(config(tmp_path), CPU)
    assert look is not None and look(torch.zeros(3, 3, 32, 32)).shape == (3, 16)


def test_the_segmenter_is_the_default() -> None:
    assert Config().evaluation.features == features.SEGMENTER and pretrained(Config(), CPU) is None


def test_what_sees_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation\.features: there is no folder"):
        pretrained(config(tmp_path / "nowhere"), CPU)
    text = transformers.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                   intermediate_size=8)  # fmt: skip
    transformers.BertModel(text).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"evaluation\.features: .* sees no images .*; choose a vision model"):
        pretrained(config(tmp_path), CPU)
    (vit(tmp_path / "vit") / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        pretrained(config(tmp_path / "vit"), CPU)
