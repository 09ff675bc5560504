"""Configurations: the five-stage vision encoder, and encoder, projector and language model together."""

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from ..constants import PROMPT_FORMAT_NAMES
from ..image_options import IMAGE_ASPECT_RATIOS

STEM_STRIDE = 4
"""Pixels per side of one patch of the stem."""

CONVNEXT_L_DEPTHS = (3, 3, 27, 3, 6)
CONVNEXT_L_WIDTHS = (192, 384, 768, 1536, 3072)
"""Layers and channels of the stages of ConvNeXt-L, the fifth being ConvLLaVA's (paper section 3.3, appendix B)."""


class ConvLlavaVisionConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of a ConvNeXt with any number of stages.

    Args:
        depths: Number of layers in each stage; its length is the number of stages.
        hidden_sizes: Channels of each stage.
        num_channels: Channels of an image.
        kernel_size: Side of the depthwise kernels, odd (7 in ConvNeXt; paper section 4.4 proposes larger ones): one
            for all stages, or a list with one for each.
        hidden_act: Activation between the two pointwise products.
        layer_norm_eps: Epsilon of every LayerNorm (1e-6 in ConvNeXt's blocks).
        layer_scale_init_value: Initial value of the layer scales, above 0.
        initializer_range: Standard deviation of initial weights (0.02 in ConvNeXt, whose layers are wide); None
            takes 1 / sqrt(inputs) for each layer, which narrow layers need to start learning.
        flatten_output: Whether the encoder returns positions as a sequence, (N, h * w, C), as other models expect of a
            vision encoder: the ``vision_config`` of transformers' ``LlavaForConditionalGeneration`` sets it.
        out_features, out_indices: Stages whose feature maps the backbone interface returns.

    Raises:
        ValueError: The values do not describe a network.
    """

    model_type = "convllava_vision"
    base_config_key = "vision_config"

    depths: list[int] | tuple[int, ...] = CONVNEXT_L_DEPTHS
    hidden_sizes: list[int] | tuple[int, ...] = CONVNEXT_L_WIDTHS
    num_channels: int = 3
    kernel_size: int | list[int] = 7
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    layer_scale_init_value: float = 1e-6
    initializer_range: float | None = 0.02
    flatten_output: bool = False
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.depths = list(self.depths)
        self.hidden_sizes = list(self.hidden_sizes)
        self._check()
        if len(set(self.kernel_sizes)) == 1:
            self.kernel_size = self.kernel_sizes[0]
        self.stage_names = ["stem", *(f"stage{i + 1}" for i in range(self.num_stages))]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)
        if self.flatten_output and self.architectures is None:  # type: ignore[has-type]
            self.architectures = ["ConvLlavaVisionModel"]  # by which AutoModel.from_config chooses in another model

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.depths)

    @property
    def kernel_sizes(self) -> list[int]:
        """Side of the depthwise kernels of each stage."""
        sizes = self.kernel_size
        return [sizes] * self.num_stages if isinstance(sizes, int) else list(sizes)

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage: the size of a visual token before the projector."""
        return self.hidden_sizes[-1]

    @property
    def output_stride(self) -> int:
        """Pixels per side of one visual token: 64 with five stages."""
        return STEM_STRIDE * 2 ** (self.num_stages - 1)

    def _check(self) -> None:
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(
                f"depths has {len(self.depths)} stages ({self.depths}) but hidden_sizes has "
                f"{len(self.hidden_sizes)} ({self.hidden_sizes}); give one entry per stage in both"
            )
        if not self.depths:
            raise ValueError("depths is empty; a vision encoder has at least one stage")
        _check_positive("depths", self.depths)
        _check_positive("hidden_sizes", self.hidden_sizes)
        _check_positive("num_channels", [self.num_channels])
        if len(self.kernel_sizes) != self.num_stages:
            raise ValueError(
                f"kernel_size has {len(self.kernel_sizes)} entries ({self.kernel_size}) but the encoder has "
                f"{self.num_stages} stages; give one number for all or one for each"
            )
        if any(size < 1 or size % 2 == 0 for size in self.kernel_sizes):
            raise ValueError(f"kernel_size must be odd and at least 1, got {self.kernel_size}")
        if self.layer_scale_init_value <= 0:
            raise ValueError(f"layer_scale_init_value must be above 0, got {self.layer_scale_init_value}")
        if self.layer_norm_eps <= 0:
            raise ValueError(f"layer_norm_eps must be above 0, got {self.layer_norm_eps}")


class ConvLlavaConfig(PreTrainedConfig):
    """Configuration of encoder, projector and language model, and how images and prompts are prepared for them.

    Args:
        vision_config: A :class:`ConvLlavaVisionConfig`, or a ``CLIPVisionConfig`` for the paper's control.
        text_config: The config of any causal language model known to transformers. Its vocabulary includes
            ``<image>``.
        image_token_id: Vocabulary id of ``<image>``; the last one by default.
        image_aspect_ratio: ``"pad"`` (square) or ``"native"``.
        resolution: Pixels: the square's side (pad) or the short side (native); None (native only) keeps the
            image's own size, rounded to multiples of the output stride.
        prompt_format: Name of the prompt format the checkpoint was trained with.
        trained_visual_tokens: Fewest and most visual tokens of one image in training, the sizes that
            ``--resolution auto`` stays within; None takes those of the padded square (pad), or is unknown (native).
        projector_hidden_act: Activation inside the two-layer projector (``mlp2x_gelu``: gelu).

    Raises:
        ValueError: The values contradict each other.
    """

    model_type = "convllava"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: Any = None  # a PreTrainedConfig after initialization
    text_config: Any = None
    image_token_id: Any = None
    image_aspect_ratio: str = "pad"
    resolution: int | None = 768
    prompt_format: str = "llava_v1"
    trained_visual_tokens: list[int] | tuple[int, ...] | None = None
    projector_hidden_act: str = "gelu"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _as_config(self.vision_config, default="convllava_vision")
        self.text_config = _as_config(self.text_config, default="llama")
        self.tie_word_embeddings = bool(self.tie_word_embeddings or self.text_config.tie_word_embeddings)
        if self.image_token_id is None:
            self.image_token_id = self.text_config.vocab_size - 1
        self._check()
        super().__post_init__(**kwargs)

    @property
    def output_stride(self) -> int:
        """Pixels per side of one visual token."""
        vision_config = self.vision_config
        if isinstance(vision_config, ConvLlavaVisionConfig):
            return vision_config.output_stride
        return vision_config.patch_size

    @property
    def visual_token_range(self) -> tuple[int, int] | None:
        """Fewest and most visual tokens of one image in training; None if they are unknown."""
        if self.trained_visual_tokens is not None:
            fewest, most = self.trained_visual_tokens
            return fewest, most
        if self.image_aspect_ratio == "pad" and self.resolution is not None:
            return ((self.resolution // self.output_stride) ** 2,) * 2
        return None

    def _check(self) -> None:
        _check_choice("image_aspect_ratio", self.image_aspect_ratio, IMAGE_ASPECT_RATIOS)
        _check_choice("prompt_format", self.prompt_format, PROMPT_FORMAT_NAMES)
        vocab_size = self.text_config.vocab_size
        if not 0 <= self.image_token_id < vocab_size:
            raise ValueError(
                f"image_token_id {self.image_token_id} is outside the vocabulary of {vocab_size}: "
                "the language model needs an embedding for <image>"
            )
        if self.resolution is None and self.image_aspect_ratio == "pad":
            raise ValueError("resolution is None: image_aspect_ratio 'pad' needs it, the side of the square in pixels")
        if self.resolution is not None and self.resolution < self.output_stride:
            raise ValueError(
                f"resolution {self.resolution} is less than the {self.output_stride} pixels of one visual token"
            )
        if self.trained_visual_tokens is not None:
            self.trained_visual_tokens = list(self.trained_visual_tokens)
            _check_range("trained_visual_tokens", self.trained_visual_tokens)


def _as_config(config: dict[str, Any] | PreTrainedConfig | None, *, default: str) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    values = dict(config or {})
    model_type = values.pop("model_type", default)
    if model_type == ConvLlavaVisionConfig.model_type:
        return ConvLlavaVisionConfig(**values)
    return AutoConfig.for_model(model_type, **values)


def _check_positive(name: str, values: Sequence[int]) -> None:
    if any(value < 1 for value in values):
        raise ValueError(f"{name} must be at least 1 everywhere, got {values}")


def _check_range(name: str, values: Sequence[int]) -> None:
    if len(values) != 2 or not 1 <= values[0] <= values[1]:
        raise ValueError(f"{name} must be the smallest and the largest number, such as [1, 200], got {values}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
