"""The verb `predict`: tracks -> a submission, a table of bouts in seconds, ethograms; or a submission's check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mabe_behavior import inputs, postprocessing, saved, spreadsheet, subject, submission, tuning
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.config import Config, PredictOptions
from mabe_behavior.recording import Recording, file_name
from mabe_behavior.streams import Stream
from mabe_behavior.subject import Trained
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.runtime import Runtime

SHOWN = 10  # problems of a submission that are told one by one


def run(app: App, config: Config, options: PredictOptions) -> int:
    """Write what animals do in the recordings of an input, or of the test; or check what somebody else wrote."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("predict: runs in one process; start it without a launcher")
    if options.check is not None:
        return check(options.check, _recordings(app, config, options, runtime))
    who = subject.find(app, config, options, runtime.device)
    if options.lab is not None and not who.vocabulary.lab(options.lab):
        raise UserError(f"--lab: {options.lab}; the model knows {', '.join(who.vocabulary.labs)}")
    recordings = _asked(who, config, options)
    out = options.out or who.run.predictions / "submission.csv"
    said, bouts = predicted(who, recordings, options.lab)
    write(out, bouts, recordings)
    if options.frames:
        write_frames(out, said)
    if options.figures:
        from mabe_behavior import pictures

        pictures.of_prediction(recordings[: options.figures], bouts, out.parent)
    if options.animations:
        from mabe_behavior import pictures

        pictures.animated(recordings, bouts, options.animations, out.parent)
    message(f"{out}: {len(bouts):,} bouts in {len(recordings):,} recordings")
    return 0


def predicted(who: Trained, recordings: Sequence[Recording], lab: str | None) -> tuple[list[Stream], Bouts]:
    """Probabilities, and the bouts that are made of them."""
    said = who.together(who.asked(recordings, judged=False, lab=lab))
    if lab is not None:
        said = [Stream(one.video, lab, one.agent, one.target, one.actions, one.p_TK, one.fps) for one in said]
    if who.decided is None:
        message("training has not finished: thresholds are 0.5, and nothing is smoothed")
        return said, postprocessing.apply_all(said, tuning.plain({name for one in said for name in one.actions}))
    return said, postprocessing.apply_all(said, who.decided.rules[saved.BLEND])


def write(out: Path, bouts: Bouts, recordings: Sequence[Recording]) -> None:
    """The submission, and beside it the same bouts in seconds, ``NAME.bouts.csv``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fps = {one.name: one.tracks.fps for one in recordings}
    if not len(bouts):
        raise UserError(
            f"{out}: not written: nothing was found in any recording, and a submission must have a row. Check --fps, "
            "--pixels-per-cm and --identities"
        )
    submission.write(out, bouts)
    spreadsheet.write_bouts(out.with_suffix(".bouts.csv"), bouts, fps)


def write_frames(out: Path, said: Sequence[Stream]) -> None:
    """A table of probabilities for each video, ``NAME.VIDEO.frames.csv``."""
    for video in dict.fromkeys(one.video for one in said):
        mine = [one for one in said if one.video == video]
        values = {
            Behaviour(one.agent, one.target, name): np.asarray(one.p_TK[:, k], np.float64)
            for one in mine
            for k, name in enumerate(one.actions)
        }
        spreadsheet.write_frames(out.with_name(f"{out.stem}.{file_name(video)}.frames.csv"), values, mine[0].fps)


def check(path: Path, recordings: Sequence[Recording]) -> int:
    """Say what is wrong with a submission: status 1 where anything is."""
    # trackers' files say nothing of what is looked for: then everything counts
    labeled = {one.name: one.labeled for one in recordings} if all(one.labeled for one in recordings) else None
    problems = submission.check(path, labeled, {one.name: len(one.tracks) for one in recordings})
    for problem in problems[:SHOWN]:
        print(f"{path}: {problem}")
    if len(problems) > SHOWN:
        print(f"{path}: and {len(problems) - SHOWN:,} more")
    fatal = sum(problem.fatal for problem in problems)
    print(
        f"{path}: valid, every row counts"
        if not problems
        else f"{path}: {len(problems):,} problems, of which {fatal:,} make the score refuse it"
    )
    return 1 if problems else 0


def _recordings(app: App, config: Config, options: PredictOptions, runtime: Runtime) -> list[Recording]:
    """What a submission is checked against: of an input without any model, else of the test recordings."""
    if options.input is not None:
        return inputs.read(options.input.expanduser(), options)
    return _asked(subject.find(app, config, options, runtime.device), config, options)


def _asked(who: Trained, config: Config, options: PredictOptions) -> list[Recording]:
    if options.input is not None:
        return inputs.read(options.input.expanduser(), options)
    material = saved.material(who.run, config, who.about)
    return [material.recording(number) for number in material.parts.test.tolist()]
