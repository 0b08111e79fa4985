"""The keys of the guide's configuration file under our names."""

from __future__ import annotations

from shared_core.keymap import Key, one_of

_RUN = "the run's folder holds it: runs/mabe-behavior/NAME"
_LAUNCH = "launch --on modal says it"


def guide_classes(count: int) -> list[str]:
    """The guide's classes beside `other`, as actions; close investigation is sniffing, and CalMS21's investigation."""
    if count != 4:
        raise ValueError("there is only 4; other classes: `actions`")
    return ["sniff+investigation", "mount", "attack"]


KEYS = {
    "model_type": Key("model.type", one_of("conv_bilstm", "tcn", "conv_transformer")),
    "input_dim": Key(None, note="the set of features says it: raw28 has 28 columns, v4 128, v6 288"),
    "num_classes": Key("actions", guide_classes, "other, close investigation, mount, attack"),
    "conv_channels": "model.channels",
    "lstm_hidden": "model.hidden",
    "lstm_layers": "model.layers",
    "use_feature_engineering": Key("features.pair", lambda on: "v4" if on else "raw28"),
    "include_pca": Key(None, note="the set v4 has components, raw28 does not"),
    "pca_components": Key(None, note="the set v4 has 16"),
    "include_temporal_stats": Key(None, note="the set v4 has them, raw28 does not"),
    "sequence_length": "windows.length",
    "frame_gap": Key(None, note="windows hold every frame"),
    "fps": "features.fps",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "optimizer": Key("optimizer.name", one_of("adamw")),
    "grad_clip": "training.clip_norm",
    "loss": Key("model.output", lambda name: {"cross_entropy": "softmax"}[str(name).lower()]),
    "class_weights": "loss.class_weights",
    "label_smoothing": "loss.smoothing",
    "scheduler": Key("scheduler.name", one_of("plateau", "cosine", "constant")),
    "scheduler_patience": "scheduler.patience",
    "scheduler_factor": "scheduler.factor",
    "min_lr": "scheduler.min_lr",
    "use_augmentation": Key(None, note="windows.noise, jitter and mixup say what is done; 0 is nothing"),
    "noise_std": Key("windows.noise", None, "in each feature's own deviations"),
    "temporal_jitter": "windows.jitter",
    "dropout": "model.dropout",
    "mixup_alpha": "windows.mixup",
    "early_stopping_patience": "training.patience",
    "num_workers": "windows.workers",
    "checkpoint_dir": Key(None, note=_RUN),
    "save_freq": "training.keep_every_epochs",
    "modal_gpu": Key(None, note=_LAUNCH),
    "modal_timeout": Key(None, note=_LAUNCH),
}
