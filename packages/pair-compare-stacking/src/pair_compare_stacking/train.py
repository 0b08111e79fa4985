"""The training problem: a stream of fresh pairs, the pair model, accuracy on val.npz."""

import torch
from torch import nn

from pair_compare_stacking import degrade, model, prepare
from pair_compare_stacking.config import Config
from pair_compare_stacking.generator import digit_prior
from pair_compare_stacking.pairs import PairNPZDataset, halves
from shared_core import files
from shared_core.batches import StreamBatches
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.task import Task

EVALUATION_BATCH = 500


class PairTask(Task):
    """Trains on pairs that are drawn anew for every batch and never repeat, from images that val.npz does not use."""

    monitor = "val/accuracy"
    maximize = True

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.config = config
        folder = prepare.require(config)
        pool = files.read_npz(folder / prepare.POOL, ("images", "labels"))
        self.images = torch.from_numpy(pool["images"]).to(runtime.device)
        labels = torch.from_numpy(pool["labels"]).to(runtime.device)
        self.index = degrade.DigitIndex.of(labels)
        self.val = PairNPZDataset(folder / "val.npz")
        if self.val.y is None or self.val.digits is None:
            raise UserError(f"{folder / 'val.npz'}: the truth beside it is missing; prepare the set again")
        self.model = build_model(config)
        over_all = config.training.batch_size * runtime.world
        if config.stream.pairs_per_epoch < over_all:
            raise UserError(
                f"stream.pairs_per_epoch: {config.stream.pairs_per_epoch} is less than one batch ({over_all}); "
                "raise it or lower --batch-size"
            )
        self.batches = StreamBatches(
            self._batch,
            batches_per_epoch=config.stream.pairs_per_epoch // over_all,
            batch_size=config.training.batch_size,
            runtime=runtime,
            seed=config.seed,
        )

    def _batch(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """x float (B, 2, 28, 28), y (B,), digits (B, 2).

        Left and right are drawn alike, so the stream is its own swap augmentation."""
        data = self.config.data
        pairs = degrade.sample_pairs_batch(
            self.images, self.index, self.config.training.batch_size, data.severity, data.weight_diff1, generator
        )
        digits = torch.stack((pairs["left_digit"], pairs["right_digit"]), dim=1)
        return {"x": halves(pairs["x"]), "y": pairs["y"], "digits": digits}

    def loss(self, model_: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        prediction = model_(batch["x"])
        total, parts = model.loss(prediction, batch["y"], batch["digits"], self.config.model.digit_weight)
        return total, {**parts, "accuracy": ((prediction.logit > 0) == (batch["y"] > 0)).float().mean()}

    def evaluate(self, model_: nn.Module, runtime: Runtime) -> dict[str, float]:
        prediction = predict(model_, self.val.x, runtime)
        y, digits = self.val.y, self.val.digits
        assert y is not None and digits is not None  # since __init__
        total, parts = model.loss(prediction, y, digits, self.config.model.digit_weight)
        hits = prediction.digit_logits.argmax(dim=-1) == digits
        return {
            "val/accuracy": float(((prediction.logit > 0) == (y > 0)).float().mean()),
            "val/digit_accuracy": float(hits.float().mean()),
            "val/loss": float(total),
            **{f"val/{name}": float(value) for name, value in parts.items()},
        }


def build_model(config: Config) -> model.PairModel:
    """The model of a configuration, freshly initialised."""
    wanted = config.model
    if len(wanted.widths) != len(wanted.layers):
        raise UserError(
            f"model.widths has {len(wanted.widths)} stages and model.layers {len(wanted.layers)}; give as many of both"
        )
    return model.PairModel(
        digit_prior(config.data.weight_diff1),
        wanted.widths,
        wanted.layers,
        wanted.feat_dim,
        wanted.hidden,
        wanted.dropout,
    )


def build_task(config: Config, runtime: Runtime) -> PairTask:
    return PairTask(config, runtime)


@torch.no_grad()
def predict(model_: nn.Module, x: torch.Tensor, runtime: Runtime) -> model.Prediction:
    """Predictions for pictures uint8 (N, 28, 56), on the CPU in their order; every process scores its share."""
    rows = x[runtime.share(len(x))]
    batches = rows.split(EVALUATION_BATCH) if len(rows) else (x[:1],)  # a process without a share still gathers
    parts = [model_(halves(batch.to(runtime.device, non_blocking=True))) for batch in batches]
    logit = torch.cat([part.logit.float() for part in parts])[: len(rows)]
    digits = torch.cat([part.digit_logits.float() for part in parts])[: len(rows)]
    return model.Prediction(runtime.gather(logit, len(x)).cpu(), runtime.gather(digits, len(x)).cpu())
