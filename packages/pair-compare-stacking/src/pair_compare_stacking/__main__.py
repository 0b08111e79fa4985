"""`pair-compare VERB`, also `python -m pair_compare_stacking VERB`."""

from collections.abc import Sequence

from shared_core.cli import App, Verb

APP = App(
    command="pair-compare",
    package="pair-compare-stacking",
    module="pair_compare_stacking",
    about="Which of two damaged digits is larger?",
    config="pair_compare_stacking.config:Config",
    task="pair_compare_stacking.train:build_task",
    headline="accuracy",
    completion="pair_compare_stacking.saved:complete",
    aliases={
        "source": "data.source",
        "data": "data.path",
        "severity": "data.severity",
        "architecture": "model.architecture",
        "feat_dim": "model.feat_dim",
        "layers": "model.layers",
        "width_mult": "model.width_mult",
        "antisymmetric": "model.antisymmetric",
        "use_bottleneck": "model.block=bottleneck|basic",
        "use_fusion": "model.heads=difference,concatenation,product,cosine,l2,residual|concatenation",
        "model_name": "name",
    },
    verbs=(
        Verb(
            "prepare",
            "pair_compare_stacking.prepare:run",
            "source digits -> files of degraded pairs",
            options="pair_compare_stacking.config:PrepareOptions",
        ),
        Verb(
            "train",
            "pair_compare_stacking.stages:run",
            "train one model, several together, or the stages of an ensemble; ends with a report",
            options="pair_compare_stacking.config:TrainOptions",
            wants_split=True,
        ),
        Verb(
            "evaluate",
            "pair_compare_stacking.evaluate:run",
            "metrics with intervals, beside a baseline, and figures",
            options="pair_compare_stacking.config:EvaluateOptions",
        ),
        Verb(
            "predict",
            "pair_compare_stacking.predict:run",
            "the answer file (id,label), or --check one",
            options="pair_compare_stacking.config:PredictOptions",
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    return APP.main(argv)


if __name__ == "__main__":
    raise SystemExit(main())
