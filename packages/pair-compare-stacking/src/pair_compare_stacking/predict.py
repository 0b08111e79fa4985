"""The verb `predict`: the course's answer file for a file of pairs, or a check of one."""

from pathlib import Path

import torch
from pydantic import Field
from shared_core import runs
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.runs import RunOptions
from shared_core.runtime import Runtime

from pair_compare_stacking import prepare, submission, train
from pair_compare_stacking.config import Config
from pair_compare_stacking.evaluate import load_model
from pair_compare_stacking.pairs import PairNPZDataset


class Options(RunOptions):
    """Which pairs, and where the answers go."""

    input: Path | None = Field(None, description=".npz with x and id; default: the prepared test_public.npz")
    out: Path | None = Field(None, description="answer file; default: predictions/pred_public.csv in the run's folder")
    check: Path | None = Field(None, description="do not predict: check this answer file against the ids of the input")


def run(app: App, config: Config, options: Options) -> int:
    """Write `id,label` for every pair, or check such a file."""
    source = options.input or prepare.require(config) / "test_public.npz"
    pairs = PairNPZDataset(source)
    if pairs.ids is None:
        raise UserError(f"{source}: has no ids; give a test set (--input), such as test_public.npz")
    if options.check is not None:
        submission.check(options.check, pairs.ids)
        print(f"{options.check}: a valid submission for {source} ({len(pairs.ids):,} answers)")
        return 0
    found = runs.locate(app, config, options)
    path = runs.checkpoint(found, options.checkpoint)
    runtime = Runtime.start(config.runtime, config.seed)
    prediction = train.predict(load_model(config, path).to(runtime.device), pairs.x, runtime)
    if runtime.is_main:
        out = options.out or found.predictions / f"pred_{source.stem.removeprefix('test_')}.csv"
        submission.write(out, pairs.ids, (torch.sigmoid(prediction.logit) >= 0.5).long().numpy())
        submission.check(out, pairs.ids)
        message(f"{out}: {len(pairs.ids):,} answers")
    return 0
