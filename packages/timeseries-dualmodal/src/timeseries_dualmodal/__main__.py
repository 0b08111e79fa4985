"""`dualmodal VERB`, also `python -m timeseries_dualmodal VERB`."""

from collections.abc import Sequence

from shared_core.cli import App, Verb

APP = App(
    command="dualmodal",
    package="timeseries-dualmodal",
    module="timeseries_dualmodal",
    about="Early classification of multivariate time series, by sight and by number.",
    config="timeseries_dualmodal.config:Config",
    task="timeseries_dualmodal.train:build_task",
    headline="macro_f1",
    completion="timeseries_dualmodal.saved:complete",
    aliases={
        "source": "data.source",
        "csv": "data.source",
        "model_type": "model.type",
        "multiscale_cache_dir": "pictures.cache",
        "embeddings_dir": "pictures.embeddings",
    },
    verbs=(
        Verb(
            "prepare",
            "timeseries_dualmodal.prepare:run",
            "tables of series -> a prepared set",
            options="timeseries_dualmodal.config:PrepareOptions",
        ),
        Verb(
            "evaluate",
            "timeseries_dualmodal.evaluate:run",
            "how well and how early, beside baselines, with intervals and figures",
            options="timeseries_dualmodal.config:EvaluateOptions",
        ),
        Verb(
            "predict",
            "timeseries_dualmodal.predict:run",
            "a class for each series, or `not yet`",
            options="timeseries_dualmodal.config:PredictOptions",
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    return APP.main(argv)


if __name__ == "__main__":
    raise SystemExit(main())
