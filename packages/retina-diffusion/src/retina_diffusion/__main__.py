"""`retina VERB`, also `python -m retina_diffusion VERB`."""

from collections.abc import Sequence

from shared_core.cli import App, Verb

APP = App(
    command="retina",
    package="retina-diffusion",
    module="retina_diffusion",
    about="Mask-conditioned fundus photographs by flow matching, planned before they are paid for.",
    config="retina_diffusion.config:Config",
    task="retina_diffusion.train:build_task",
    headline="mask_fidelity",
    key_map="retina_diffusion.keys:KEYS",
    completion="retina_diffusion.saved:complete",
    aliases={
        "source": "data.source",
        "size": "data.size",
        "image_size": "data.size",
        "sample_ratio": "data.sample_ratio",
        "from": "model.pretrained.source",
    },
    verbs=(
        Verb(
            "prepare",
            "retina_diffusion.prepare:run",
            "photographs, masks and texts -> a prepared set",
            options="retina_diffusion.config:PrepareOptions",
        ),
        Verb(
            "plan",
            "retina_diffusion.plan:run",
            "what training would cost, before it does; --budget 24h --gpu A100: what all presets make of it",
            options="retina_diffusion.config:PlanOptions",
        ),
        Verb(
            "finetune",
            "retina_diffusion.finetune:run",
            "train on from Lumina's published weights: --from lumina, or a file",
            preset="lumina_2b",
        ),
        Verb(
            "evaluate",
            "retina_diffusion.evaluate:run",
            "whether images follow their masks, and how they differ from real ones",
            options="retina_diffusion.config:EvaluateOptions",
        ),
        Verb(
            "predict",
            "retina_diffusion.predict:run",
            "masks and texts -> images",
            options="retina_diffusion.config:PredictOptions",
        ),
        Verb(
            "export",
            "retina_diffusion.export:run",
            "weights as one .pt file (adapters folded in), ONNX or torch.export",
            options="shared_core.verbs:ExportOptions",
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    return APP.main(argv)


if __name__ == "__main__":
    raise SystemExit(main())
