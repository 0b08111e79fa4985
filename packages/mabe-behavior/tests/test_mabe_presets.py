"""The guide's configuration, as its file has it and as the preset does, and what the preset's network is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mabe_behavior import train
from mabe_behavior.__main__ import APP, main
from mabe_behavior.config import Config
from mabe_behavior.features import sets
from mabe_behavior.vocabulary import Vocabulary

# every key of the guide, with its value
GUIDE = """
model_type: conv_bilstm
input_dim: 28
num_classes: 4
conv_channels: [64, 128, 256]
lstm_hidden: 256
lstm_layers: 2
use_feature_engineering: true
include_pca: true
pca_components: 16
include_temporal_stats: true
sequence_length: 100
frame_gap: 1
fps: 33.3
epochs: 100
batch_size: 64
learning_rate: 3e-4
weight_decay: 1e-4
optimizer: adamw
grad_clip: 1.0
loss: cross_entropy
class_weights: [0.5, 10, 15, 15]
label_smoothing: 0.0
scheduler: plateau
scheduler_patience: 5
scheduler_factor: 0.5
min_lr: 1e-5
use_augmentation: true
noise_std: 0.01
temporal_jitter: 2
dropout: 0.3
mixup_alpha: 0.0
early_stopping_patience: 15
num_workers: 4
checkpoint_dir: checkpoints
save_freq: 5
modal_gpu: A10G
modal_timeout: 14400
"""
# what the preset says besides: the guide knows neither indicators of missing values nor laboratories
ALSO = """
model: {indicators: false, lab_width: 0}
"""


def loaded(path: Path) -> Config:
    config = APP.load(path)
    assert isinstance(config, Config)
    return config


def test_the_guides_file_is_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of its keys is translated or said to be of no use here, a line each."""
    path = tmp_path / "advanced.yaml"
    path.write_text(GUIDE)
    assert main(["train", "--config", str(path), "--print-config"]) == 0  # as it is
    capsys.readouterr()
    path.write_text(GUIDE + ALSO)
    assert main(["train", "--config", str(path), "--loss.soft_f1", "0", "--print-config"]) == 0
    out, err = capsys.readouterr()
    keys = [line.split(":")[0] for line in GUIDE.strip().splitlines()]
    for key in keys:
        if key in ("epochs", "batch_size"):
            continue
        assert any(f": {key}" in line for line in err.splitlines()), key
    again = tmp_path / "again.yaml"
    again.write_text(out)
    mine, preset = loaded(again), APP.load("v4")
    for section in ("model", "optimizer", "loss", "actions", "features"):
        assert getattr(mine, section) == getattr(preset, section), section
    for name in ("length", "noise", "jitter", "mixup"):
        assert getattr(mine.windows, name) == getattr(preset.windows, name)
    for name in ("epochs", "batch_size", "clip_norm", "patience", "keep_every_epochs"):
        assert getattr(mine.training, name) == getattr(preset.training, name)
    for name in ("name", "patience", "factor", "min_lr"):
        assert getattr(mine.scheduler, name) == getattr(preset.scheduler, name)


@pytest.mark.parametrize(
    ("name", "columns", "parameters"), [("raw28", 28, 2_761_284), ("v6", 288, 2_811_204), ("v4", 128, 2_780_484)]
)
def test_the_guides_network_on_each_set_of_features(name: str, columns: int, parameters: int) -> None:
    """The guide's 28 inputs became 131 once features were engineered, by its documents; here they are 128."""
    config = APP.load("v4")
    assert isinstance(config, Config)
    assert sets.WIDTHS[name] == columns
    known = Vocabulary((("sniff", "investigation"), ("mount",), ("attack",)), (), ("one", "two"))
    model = train.build_model(config, known, {"pair": columns})
    assert len(model) == 1
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_a_wrong_choice_of_the_guides_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("model_type: pointnet\n")
    assert main(["train", "--config", str(path), "--print-config"]) == 2
    assert "there is only conv_bilstm or tcn or conv_transformer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--loss.class_weights", "1,2"), "of model.output softmax"),
        (("--model.output", "softmax", "--features.alone", "alone"), "set none"),
        (("--windows.jitter", "300"), "windows.jitter: 300"),
        (("--split.kind", "lab"), "needs at least one"),
        (("--split.models", "9"), "only 3 folds"),
        (("--config", "v4", "--loss.class_weights", "1,2"), "2 for other and 3 actions"),
    ],
)
def test_settings_that_do_not_fit(flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *flags, "--print-config"]) == 2
    assert said in capsys.readouterr().err


def test_a_launch_on_modal_is_planned_without_an_account(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--on", "modal", "--gpu", "A10G", "--timeout", "4h", "--memory", "16G", "--config", "v4", "--detach")
    assert main(["launch", *flags, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "modal run --detach" in said and "mabe-behavior" in said and "v4" in said


def test_actions_are_given_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--actions", "sniff+investigation,attack", "--print-config"]) == 0
    assert "- sniff+investigation\n- attack" in capsys.readouterr().out
    config = APP.load("v4")
    assert isinstance(config, Config)
    assert config.classes == (("sniff", "investigation"), ("mount",), ("attack",))
