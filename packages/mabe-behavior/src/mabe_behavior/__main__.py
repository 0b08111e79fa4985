"""`mabe VERB`, also `python -m mabe_behavior VERB`."""

from collections.abc import Sequence

from shared_core.cli import App, Verb

APP = App(
    command="mabe",
    package="mabe-behavior",
    module="mabe_behavior",
    about="Who does what to whom, and when: mouse behaviour from pose tracks.",
    config="mabe_behavior.config:Config",
    task="mabe_behavior.train:build_task",
    headline="score",
    key_map="mabe_behavior.keys:KEYS",
    completion="mabe_behavior.saved:complete",
    aliases={"source": "data.source", "data": "data.path", "model_type": "model.type"},
    verbs=(
        Verb(
            "prepare",
            "mabe_behavior.prepare:run",
            "recordings of a source -> a prepared set",
            options="mabe_behavior.config:PrepareOptions",
        ),
        Verb(
            "evaluate",
            "mabe_behavior.evaluate:run",
            "the official score and what it is made of, with intervals, per laboratory, beside baselines",
            options="mabe_behavior.config:EvaluateOptions",
        ),
        Verb(
            "predict",
            "mabe_behavior.predict:run",
            "tracks -> a submission, tables of bouts and ethograms; --check FILE checks a submission",
            options="mabe_behavior.config:PredictOptions",
        ),
        Verb(
            "benchmark",
            "mabe_behavior.benchmark:run",
            "train and judge as a published benchmark does, beside its numbers: mabe benchmark calms21 --data PATH",
            options="mabe_behavior.config:BenchmarkOptions",
            preset="calms21",
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    return APP.main(argv)


if __name__ == "__main__":
    raise SystemExit(main())
