"""The keys of a recipe that say which model is trained: preset, encoder, appended stages."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Immutable settings that reject unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


Depth = Annotated[int, Field(le=1000)]
"""Number of layers of a stage; a model is built even for the plan, which takes minutes for a million."""

Width = Annotated[int, Field(le=1 << 20)]
"""Channels of a stage."""


class AppendStages(Strict):
    """Freshly initialized encoder stages: number of layers and channels of each."""

    depths: list[Depth]
    hidden_sizes: list[Width]


class ConvNextOptions(Strict):
    """A ConvNeXt in place of the preset's encoder; what is not set stays as in the preset.

    Attributes:
        depths: Layers of each stage; the length is the number of stages.
        hidden_sizes: Channels of each stage.
        kernel_size: Side of the depthwise kernels, one for all stages or one for each.
    """

    depths: list[Depth] | None = None
    hidden_sizes: list[Width] | None = None
    kernel_size: int | list[int] | None = None

    @model_validator(mode="after")
    def _has_widths(self) -> "ConvNextOptions":
        if self.hidden_sizes is not None and self.depths is None:
            raise ValueError("hidden_sizes needs depths, which says how many layers each stage has")
        return self


class VitOptions(Strict):
    """A ViT of CLIP's architecture as encoder: the paper's control (Tables 2, 3 and 8), at any size.

    As in LLaVA-1.5, the visual tokens are the features before the last layer, so that layer has no effect.

    Attributes:
        hidden_size: Channels.
        num_layers: Number of layers, the last one included.
        num_heads: Attention heads of a layer.
        patch_size: Side of a patch, and so of a visual token, in pixels.
        image_size: Side of the images in pixels, a multiple of ``patch_size``: position embeddings are learned.
    """

    hidden_size: int = Field(gt=0)
    num_layers: int = Field(ge=2)
    num_heads: int = Field(gt=0)
    patch_size: int = Field(gt=0)
    image_size: int = Field(gt=0)

    @model_validator(mode="after")
    def _divides(self) -> "VitOptions":
        for name, value, divisor in (
            ("hidden_size", self.hidden_size, "num_heads"),
            ("image_size", self.image_size, "patch_size"),
        ):
            if value % getattr(self, divisor):
                raise ValueError(f"{name} {value} is not a multiple of {divisor} {getattr(self, divisor)}")
        return self


class Architecture(Strict):
    """A model's architecture: a preset, another encoder in place of the preset's, and stages appended to it.

    A string means the preset of this name, as it is.
    """

    preset: str
    encoder: ConvNextOptions | None = None
    vit: VitOptions | None = None
    append_stages: AppendStages | None = None

    @model_validator(mode="after")
    def _has_one_encoder(self) -> "Architecture":
        if self.vit is not None and (self.encoder is not None or self.append_stages is not None):
            raise ValueError("vit takes the place of the encoder: leave out encoder and append_stages, or vit")
        return self

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value
