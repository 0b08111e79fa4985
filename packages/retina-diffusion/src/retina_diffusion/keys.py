"""The keys of the predecessor's configuration files (`configs/train_config_fast.yaml` and its like) under our names."""

from __future__ import annotations

from typing import Any

from shared_core.keymap import Key, one_of

_RUN = "the run's folder holds it: runs/retina-diffusion/NAME"


def _precision(on: Any) -> str:
    return "auto" if on else "fp32"


KEYS = {
    "data.image_size": "data.size",
    "data.batch_size": "training.batch_size",
    "model.model_name": Key(None, note="NextDiT is what there is"),
    "model.in_channels": Key(None, note="model.space: pixels have 3"),
    "model.mask_channels": Key(None, note="each class of a mask has its channel: model.channels"),
    "model.hidden_size": "model.dim",
    "model.num_heads": "model.heads",
    "model.patch_size": "model.patch",
    "training.num_epochs": "training.epochs",
    "training.learning_rate": "optimizer.lr",
    "training.weight_decay": "optimizer.weight_decay",
    "training.warmup_steps": "scheduler.warmup_steps",
    "training.gradient_clip": "training.clip_norm",
    "training.gradient_accumulation_steps": "training.accumulation",
    "training.early_stopping_patience": "training.patience",
    "training.use_amp": Key("runtime.precision", _precision, "auto: bf16 where the device computes in it"),
    "training.amp_dtype": Key(None, note="runtime.precision says it"),
    "training.save_every": "training.checkpoint_every",
    "training.checkpoint_dir": Key(None, note=_RUN),
    "training.log_every": "logging.every",
    "training.log_dir": Key(None, note=_RUN),
    "loss.type": Key(None, note="flow matching is what there is"),
    "loss.weighting": Key("flow.weighting", one_of("uniform")),
    "optimizer": Key("optimizer.name", one_of("adamw")),
    "optimizer.type": Key("optimizer.name", one_of("adamw")),
    "scheduler": Key("scheduler.name", one_of("cosine", "linear", "constant")),
    "scheduler.type": Key("scheduler.name", one_of("cosine", "linear", "constant")),
    "scheduler.warmup_type": Key(None, note="warm-up is linear"),
}
