"""The verb `predict`: the course's answer file for a file of pairs, or a check of one."""

import torch

from pair_compare_stacking import prepare, subject, submission
from pair_compare_stacking.config import Config, PredictOptions
from pair_compare_stacking.pairs import PairNPZDataset
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.runtime import Runtime


def run(app: App, config: Config, options: PredictOptions) -> int:
    """Write `id,label` for every pair, or check such a file."""
    source = options.input or prepare.require(config) / "test_public.npz"
    pairs = PairNPZDataset(source)
    if pairs.ids is None:
        raise UserError(f"{source}: has no ids; give a test set (--input), such as test_public.npz")
    if options.check is not None:
        submission.check(options.check, pairs.ids)
        print(f"{options.check}: a valid submission for {source} ({len(pairs.ids):,} answers)")
        return 0
    who = subject.find(app, config, options)
    runtime = Runtime.start(config.runtime, config.seed)
    prediction = who.answer(pairs.x, runtime, options.swap_average).prediction
    if runtime.is_main:
        out = options.out or who.run.predictions / f"pred_{source.stem.removeprefix('test_')}.csv"
        submission.write(out, pairs.ids, (torch.sigmoid(prediction.logit) >= 0.5).long().numpy())
        submission.check(out, pairs.ids)
        message(f"{out}: {len(pairs.ids):,} answers")
    return 0
