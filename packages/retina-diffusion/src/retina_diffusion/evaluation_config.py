"""The settings of the section `evaluation`."""

from __future__ import annotations

from retina_diffusion.data_config import Channel
from shared_core.settings import Section, resumable


class Evaluation(Section):
    """What images are judged by (`retina_diffusion.evaluate`)."""

    classes: tuple[Channel, ...] = resumable(
        (),
        description="classes whose masks images must follow: those that the resolution can show; default: all that the "
        "network sees and the photographs have, but the field of view",
    )
    most_masks: int | None = resumable(
        None, ge=2, description="masks that images are drawn of, evenly taken; default: those of all photographs"
    )
    most_photographs: int | None = resumable(
        None, ge=20, description="photographs that one image each is drawn of, for FID and KID; default: all"
    )
    training_photographs: int = resumable(
        48, ge=4, description="training photographs whose masks and texts are asked for, to see whether copies come out"
    )
    size: int | None = resumable(
        None, ge=16, le=4096, description="pixels of a side at which images are judged; default: data.size, at most 256"
    )
    features: str = resumable(
        "segmenter",
        min_length=1,
        description="what sees images for FID and KID: segmenter, or OWNER/NAME[@REVISION] or the folder of a vision "
        "model (extra `text`), which begins with / or ./",
    )
    per_mask: int = resumable(4, ge=2, description="images for each mask")
    segmenter_steps: int = resumable(
        400, ge=1, description="training of the segmenter that judges, on real photographs"
    )
    grader_steps: int = resumable(300, ge=1, description="training of each grader, for --downstream")
    generated: int = resumable(
        500, ge=10, description="images that each grader gets besides real ones; three sets are drawn, for --downstream"
    )
