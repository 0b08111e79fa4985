"""Lumina's published weights: where they come from, and how they get into a network."""

from __future__ import annotations

from pathlib import Path

from retina_diffusion import lora, lumina
from retina_diffusion.model_config import Pretrained
from retina_diffusion.nextdit import NextDiT
from shared_core.errors import UserError

PUBLISHED = "Alpha-VLLM/Lumina-Next-T2I"


def find(source: str) -> Path:
    """The file or folder of a source; what is on the Hub is fetched, at a pinned commit.

    Raises UserError where there is none.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if source != "lumina" and "@" not in source:
        raise UserError(
            f"model.pretrained.source: {source}: no such file or folder; for weights on the Hub write `lumina` or "
            "OWNER/NAME@REVISION"
        )
    from shared_core import hub

    name, revision = (PUBLISHED, None) if source == "lumina" else hub.parse(source)
    for stem, suffix in lumina.KINDS:  # one of them: a checkpoint may be there in all four
        folder = hub.snapshot(name, revision, patterns=(f"{stem}.*{suffix}",))
        if any(folder.glob(f"{stem}.*{suffix}")):
            break
    return folder


def prepare(network: NextDiT, wanted: Pretrained) -> None:
    """Adapters where they are wanted, and which weights train. Raises UserError where the rank is no use."""
    if wanted.tune == "lora":
        if wanted.rank >= network.shape.dim:
            raise UserError(
                f"model.pretrained.rank: {wanted.rank}: must be below model.dim, {network.shape.dim}; 16 is common"
            )
        lora.add(network, wanted.rank, wanted.alpha)
    else:
        lora.freeze(network, wanted.tune)


def load(network: NextDiT, wanted: Pretrained) -> lumina.Loaded:
    """Give a network, before it has adapters, the weights that are wanted.

    Raises UserError where they are not there, or fill less of the network than `wanted.least_share`.
    """
    assert wanted.source is not None
    return lumina.load(network, lumina.read(find(wanted.source)), wanted.least_share)
