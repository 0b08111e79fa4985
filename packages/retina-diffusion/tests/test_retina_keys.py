"""The guide's own configuration file, under our names."""

from pathlib import Path

import pytest

from retina_diffusion import keys
from retina_diffusion.config import Config
from shared_core.config import load
from shared_core.errors import UserError

GUIDE = """\
data:
  train_data_path: data/train.jsonl
  val_data_path: data/val.jsonl
  image_size: 256
  batch_size: 128
  num_workers: 4
  sample_ratio: 0.5
model:
  model_name: NextDiT
  in_channels: 3
  mask_channels: 1
  hidden_size: 768
  depth: 12
  num_heads: 12
  patch_size: 2
  use_flash_attn: true
training:
  num_epochs: 20
  learning_rate: 3e-4
  weight_decay: 0.0
  warmup_steps: 200
  gradient_clip: 1.0
  gradient_accumulation_steps: 4
  early_stopping_patience: 5
  use_amp: true
  amp_dtype: bfloat16
  save_every: 5
  checkpoint_dir: checkpoints/ultra_fast
  log_every: 50
  log_dir: logs/ultra_fast
loss:
  type: flow_matching
  weighting: uniform
optimizer:
  type: AdamW
  betas: [0.9, 0.999]
  eps: 1e-8
scheduler:
  type: cosine
  min_lr: 1e-6
  warmup_type: linear
"""


def loaded(folder: Path, text: str) -> tuple[Config, list[str]]:
    (folder / "train_config_ultra_fast.yaml").write_text(text)
    lines: list[str] = []
    return load(Config, folder / "train_config_ultra_fast.yaml", folder, keys=keys.KEYS, notice=lines.append), lines


def test_every_value_lands_where_it_belongs(tmp_path: Path) -> None:
    config, _ = loaded(tmp_path, GUIDE)
    data, model, training = config.data, config.model, config.training
    assert data.sources == ("data/train.jsonl", "data/val.jsonl")
    assert (data.size, data.num_workers, data.sample_ratio) == (256, 4, 0.5)
    assert (model.dim, model.depth, model.heads, model.patch, model.use_flash_attn) == (768, 12, 12, 2, True)
    assert (training.batch_size, training.epochs, training.checkpoint_every, training.clip_norm) == (128, 20, 5, 1.0)
    assert (training.accumulation, training.patience) == (4, 5)
    optimizer, scheduler = config.optimizer, config.scheduler
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 3e-4, 0.0)
    assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert (scheduler.name, scheduler.warmup_steps, scheduler.min_lr) == ("cosine", 200, 1e-6)
    assert (config.runtime.precision, config.logging.every, config.flow.weighting) == ("auto", 50, "uniform")
    assert config.token_side**2 == 16_384  # as many as are allowed
    assert config.name == "train_config_ultra_fast"


def test_a_line_for_each_key_that_is_translated_or_dropped(tmp_path: Path) -> None:
    _, lines = loaded(tmp_path, GUIDE)
    path = tmp_path / "train_config_ultra_fast.yaml"
    olds = [line.removeprefix(f"{path}:").split(": ")[1].split(" -> ")[0] for line in lines]
    settings = {f"{section}.{line.split(':')[0].strip()}" for section, line in in_sections()}
    assert len(olds) == len(set(olds)) and set(olds) == settings & set(keys.KEYS)
    assert f"{path}:19: training.learning_rate -> optimizer.lr: 0.0003" in lines
    assert f"{path}:11: model.mask_channels: ignored (each class of a mask has its channel: model.channels)" in lines


def in_sections() -> list[tuple[str, str]]:
    section, found = "", []
    for line in GUIDE.splitlines():
        if line.startswith(" "):
            found.append((section, line))
        else:
            section = line.rstrip(":")
    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [("use_amp: true", "use_amp: false"), ("type: AdamW", "type: adamw"), ("type: cosine", "type: Constant")],
)
def test_other_values(old: str, new: str, tmp_path: Path) -> None:
    config, _ = loaded(tmp_path, GUIDE.replace(old, new))
    assert config.runtime.precision == ("fp32" if "false" in new else "auto")
    assert config.scheduler.name == ("constant" if "Constant" in new else "cosine")


def test_sections_written_as_names(tmp_path: Path) -> None:
    config, _ = loaded(tmp_path, "optimizer: AdamW\nscheduler: cosine\n")
    assert (config.optimizer.name, config.scheduler.name) == ("adamw", "cosine")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_size", "imagesize", r":4: .*imagesize"),
        ("num_epochs", "n_epochs", r":18: .*n_epochs"),
        ("weighting: uniform", "weighting: snr", "loss.weighting: 'snr' has no equivalent .*there is only uniform"),
        ("type: AdamW", "type: SGD", "optimizer.type: 'SGD' has no equivalent .*there is only adamw"),
        ("type: cosine", "type: step", "'step' has no equivalent .*there is only cosine or linear or constant"),
        ("image_size: 256", "image_size: 256\n  size: 128", "line 4 sets the same thing"),
        ("image_size: 256", "image_size: 1024", r"262,144 tokens .*\.most_tokens, 16,384; 8 makes 16,384"),
        ("image_size: 256", "image_size: 101", "image_size: must be a multiple of a token's side, 2 pixels"),
        ("num_heads: 12", "num_heads: 10", "10 must divide dim 768 into multiples of 4"),
    ],
)
def test_what_is_unknown_or_impossible_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, GUIDE.replace(old, new, 1))
