"""The settings of the network, of its text encoder, of flow matching and of sampling."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from retina_diffusion.channels import CHANNELS, Channel
from shared_core.settings import Section, resumable

MOST_TOKENS = 16_384
HEAD = 32  # features of a head of the text encoder
Method = Literal["euler", "midpoint", "heun", "dopri5"]


class Pretrained(Section):
    """Weights of Lumina-Next to begin with (`retina_diffusion.lumina`)."""

    source: str | None = Field(
        None,
        min_length=1,
        description="lumina (the published ones, from the Hub), OWNER/NAME@REVISION, or a file or folder of "
        "consolidated*.safetensors or .pth",
    )
    least_share: float = Field(
        0.95, ge=0, le=1, description="least share of the parameters that the file must fill; less is an error"
    )
    tune: Literal["all", "new", "lora"] = Field(
        "all", description="what trains: all weights, only what the masks added, or that and low-rank adapters"
    )
    rank: int = Field(16, ge=1, description="lora: rank of the adapters")
    alpha: float = Field(16.0, gt=0, description="lora: adapters are scaled by alpha / rank")


class Model(Section):
    """NextDiT (`retina_diffusion.nextdit`)."""

    space: Literal["pixels", "latents"] = Field(
        "pixels", description="what is generated: pixels, or a VAE's latents (extra `latents`; model.vae)"
    )
    prediction: Literal["x", "velocity"] = Field("x", description="what the network says: the image, or the velocity")
    patch: int = Field(8, ge=1, description="side of a token, in pixels or latents")
    dim: int = Field(128, ge=8, description="width of a token")
    depth: int = Field(4, ge=1, description="blocks")
    heads: int = Field(4, ge=1, description="heads of attention")
    kv_heads: int | None = Field(None, ge=1, description="heads of keys and values; default: heads")
    bottleneck: int | None = Field(
        None, ge=1, description="width between a patch and its token; for large patches, 64 to 256; null: none"
    )
    multiple_of: int = Field(32, ge=1, description="the hidden layer's width is rounded up to a multiple of it")
    qk_norm: bool = Field(True, description="normalise queries and keys")
    learn_sigma: bool = Field(False, description="as many channels again come out and are dropped, as Lumina's do")
    use_flash_attn: bool = Field(True, description="fused attention where the device has it; false: the plain one")
    channels: tuple[Channel, ...] = Field(CHANNELS, description="masks that the network sees, one channel each")
    most_tokens: int = resumable(
        MOST_TOKENS, ge=1, description="larger images are refused: attention among more tokens takes days for one"
    )
    vae: str = resumable(
        "stabilityai/sdxl-vae",
        description="latents: OWNER/NAME[@REVISION] of the VAE, or its folder, which begins with / or ./",
    )
    latent_channels: int = Field(4, ge=1, description="latents: channels, those of the VAE")
    latent_factor: int = Field(8, ge=1, description="latents: pixels of a side that become one latent, as the VAE's do")
    pretrained: Pretrained = Pretrained()

    @model_validator(mode="after")
    def _heads_fit(self) -> Model:
        if self.dim % self.heads or (self.dim // self.heads) % 4:
            raise ValueError(f"heads: {self.heads} must divide dim {self.dim} into multiples of 4")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads: {self.kv_heads} must divide heads, {self.heads}")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: names one twice")
        return self

    @property
    def factor(self) -> int:
        """Pixels of a side that become one place of what is generated."""
        return self.latent_factor if self.space == "latents" else 1

    @property
    def values(self) -> int:
        """Channels of what is generated."""
        return self.latent_channels if self.space == "latents" else 3

    @property
    def token(self) -> int:
        """Pixels of a token's side."""
        return self.patch * self.factor


class Text(Section):
    """What is made of captions (`retina_diffusion.captions`, `textmodel`)."""

    encoder: Literal["words", "hub"] = Field(
        "words", description="words: learned with the network, of the training captions' words; hub: a frozen model"
    )
    model: str | None = resumable(
        None, description="hub: OWNER/NAME[@REVISION] of a text model, such as google/gemma-2b, or its folder"
    )
    tokens: int = Field(24, ge=1, le=1024, description="most words (or tokens) of a caption; the others are left out")
    dim: int = Field(64, ge=4, description="features of a token; hub: those of the model")
    depth: int = Field(1, ge=0, description="words: blocks of the encoder")

    @model_validator(mode="after")
    def _named(self) -> Text:
        if (self.encoder == "hub") != (self.model is not None):
            raise ValueError("model: goes with encoder: hub, which needs it")
        if self.encoder == "words" and self.depth and self.dim % (heads := max(1, self.dim // HEAD)):
            raise ValueError(f"dim: {self.dim} features are no multiple of {heads} heads; take a multiple of {HEAD}")
        return self


class Flow(Section):
    """How training walks from noise to data (`retina_diffusion.times`)."""

    times: Literal["uniform", "logit_normal"] = Field("logit_normal", description="which times are shown")
    mean: float = Field(-0.8, description="logit_normal: 0 is half way, below it there is more noise")
    std: float = Field(0.8, gt=0, description="logit_normal: how far times spread")
    shift: float | None = Field(
        None, gt=0, description="moves times towards noise (below 1) or data; default: base_size / size, at most 1"
    )
    base_size: int = Field(256, ge=1, description="pixels of a side from which on times are moved towards noise")
    mask_dropout: float = Field(0.1, ge=0, lt=1, description="share of images whose masks alone are hidden in training")
    text_dropout: float = Field(0.1, ge=0, lt=1, description="share of images whose caption alone is hidden")
    both_dropout: float = Field(0.1, ge=0, lt=1, description="share of images of which both are: what guidance leaves")
    weighting: Literal["uniform"] = Field("uniform", description="of times in the loss, which is that of velocities")

    @model_validator(mode="after")
    def _something_is_shown(self) -> Flow:
        if (hidden := self.mask_dropout + self.text_dropout + self.both_dropout) >= 1:
            raise ValueError(f"mask_dropout: with text_dropout and both_dropout {hidden:g}; must be below 1")
        return self


class Sampling(Section):
    """How images are drawn (`retina_diffusion.solvers`, `guidance`)."""

    method: Method = resumable(
        "heun",
        description="solver; euler takes one evaluation per step, the others two or more; dopri5 draws one at a time",
    )
    steps: int = resumable(25, ge=1, description="of the solver; dopri5 chooses its own")
    mask_guidance: float = resumable(1.0, ge=0, description="weight of the masks; 1: as learned")
    text_guidance: float = resumable(1.0, ge=0, description="weight of the caption; 1: as learned")
    guided_from: float = resumable(0.1, ge=0, le=1, description="time before which nothing is guided")
    guided_to: float = resumable(0.9, ge=0, le=1, description="time after which nothing is guided")
    shift: float | None = resumable(None, gt=0, description="of the solver's times; default: as in training")
    batch_size: int = resumable(64, ge=1, description="images at a time")

    @model_validator(mode="after")
    def _ascending(self) -> Sampling:
        if self.guided_from > self.guided_to:
            raise ValueError(f"guided_from: {self.guided_from} is after guided_to, {self.guided_to}: nothing is guided")
        return self


class Augment(Section):
    """Changes to training images."""

    flip: bool = Field(True, description="mirror left and right, half of the time: a left eye for a right one")
    upside_down: bool = Field(False, description="mirror up and down, half of the time: for very few photographs")
    shift: float = Field(0.0, ge=0, lt=0.5, description="move by up to this share of a side")
    masked_share: float | None = Field(
        None, gt=0, lt=1, description="share of training samples that have masks; default: that of the photographs"
    )
