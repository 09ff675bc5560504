"""The vision encoder: a ConvNeXt with any number of stages on images of any shape.

Parameter names equal those of transformers' ``ConvNextModel`` (``embeddings...``, ``encoder.stages.N...``), so
weights move without a mapping. There is no final norm: ConvLLaVA takes the feature map before it.

Features keep their channels last, (N, H, W, C), from the stem to the last stage. A convolution sees the same memory
through a permuted view, which PyTorch recognizes as its channels-last format, so nothing is ever copied to change
the layout.
"""

import importlib.util
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithNoAttention

from .configuration_convllava import STEM_STRIDE, ConvLlavaVisionConfig
from .depthwise import depthwise_convolve


def _convolve(convolution: nn.Module, features: Tensor) -> Tensor:
    """Apply a convolution to (N, H, W, C) features without moving them."""
    output = convolution(features.permute(0, 3, 1, 2))
    return output.permute(0, 2, 3, 1).contiguous()  # already so on CPU and CUDA; costs nothing then


class ConvLlavaVisionLayer(GradientCheckpointingLayer):
    """One ConvNeXt block: depthwise convolution, norm, two pointwise products, layer scale, residual."""

    is_fused = False  # see ConvLlavaVisionModel.use_fused_kernels

    def __init__(self, config: ConvLlavaVisionConfig, width: int) -> None:
        super().__init__()
        kernel_size = config.kernel_size
        self.dwconv = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.act = ACT2FN[config.hidden_act]
        self.pwconv2 = nn.Linear(4 * width, width)
        self.layer_scale_parameter = nn.Parameter(torch.full((width,), config.layer_scale_init_value))

    def forward(self, features: Tensor) -> Tensor:  # (N, H, W, C) -> same
        hidden = self.pwconv2(self.act(self.pwconv1(self._convolve_and_norm(features))))
        return torch.addcmul(features, hidden, self.layer_scale_parameter)

    def _convolve_and_norm(self, features: Tensor) -> Tensor:  # (N, H, W, C) -> same
        if self.is_fused:
            from .triton_kernels import depthwise_norm

            convolution, norm = self.dwconv, self.layernorm
            assert convolution.bias is not None
            return depthwise_norm(features, convolution.weight, convolution.bias, norm.weight, norm.bias, norm.eps)
        convolved = depthwise_convolve(self.dwconv, features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.layernorm(convolved.contiguous())


class ConvLlavaVisionStage(nn.Module):
    """A halving of the resolution (in every stage but the first), then layers of one width."""

    def __init__(self, config: ConvLlavaVisionConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_sizes[index]
        self.downsampling_layer = nn.ModuleList()
        if index > 0:
            previous = config.hidden_sizes[index - 1]
            self.downsampling_layer.append(nn.LayerNorm(previous, eps=config.layer_norm_eps))
            self.downsampling_layer.append(nn.Conv2d(previous, width, kernel_size=2, stride=2))
        self.layers = nn.ModuleList(ConvLlavaVisionLayer(config, width) for _ in range(config.depths[index]))

    def forward(self, features: Tensor) -> Tensor:  # (N, H, W, C) -> (N, H // 2, W // 2, C')
        features = self.downsample(features)
        for layer in self.layers:
            features = layer(features)
        return features

    def downsample(self, features: Tensor) -> Tensor:  # (N, H, W, C) -> (N, H // 2, W // 2, C')
        """Halve the resolution; the first stage has nothing to halve."""
        if not len(self.downsampling_layer):
            return features
        norm, convolution = self.downsampling_layer
        return _convolve(convolution, norm(features))


class ConvLlavaVisionEmbeddings(nn.Module):
    """The stem: one feature per patch of 4 x 4 pixels."""

    def __init__(self, config: ConvLlavaVisionConfig) -> None:
        super().__init__()
        width = config.hidden_sizes[0]
        self.patch_embeddings = nn.Conv2d(config.num_channels, width, STEM_STRIDE, stride=STEM_STRIDE)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, H // 4, W // 4, C)
        pixels = pixel_values.contiguous(memory_format=torch.channels_last)
        return self.layernorm(_convolve(self.patch_embeddings, pixels.permute(0, 2, 3, 1)))


class ConvLlavaVisionEncoder(nn.Module):
    """The stages in a row."""

    def __init__(self, config: ConvLlavaVisionConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(ConvLlavaVisionStage(config, i) for i in range(config.num_stages))


class ConvLlavaVisionPreTrainedModel(PreTrainedModel):
    """Weight initialization and capabilities shared by the encoder and its backbone form."""

    config: ConvLlavaVisionConfig
    config_class = ConvLlavaVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["ConvLlavaVisionLayer"]

    embeddings: ConvLlavaVisionEmbeddings
    encoder: ConvLlavaVisionEncoder

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if self.config.initializer_range is None and isinstance(module, (nn.Conv2d, nn.Linear)):
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            init.zeros_(module.bias)
            return
        super()._init_weights(module)
        if isinstance(module, ConvLlavaVisionLayer):
            init.constant_(module.layer_scale_parameter, self.config.layer_scale_init_value)

    def _feature_maps(self, pixel_values: Tensor) -> list[Tensor]:
        """Return the outputs of the stem and of every stage, each (N, h, w, C)."""
        _check_at_least_one_cell(pixel_values, self.config.output_stride)
        features = self.embeddings(pixel_values.to(self.dtype))
        maps = [features]
        for stage in self.encoder.stages:
            features = stage(features)
            maps.append(features)
        return maps


class ConvLlavaVisionModel(ConvLlavaVisionPreTrainedModel):
    """The vision encoder of ConvLLaVA.

    Example:
        >>> tower = ConvLlavaVisionModel(ConvLlavaVisionConfig(depths=[1, 1], hidden_sizes=[8, 16]))
        >>> tower(torch.zeros(1, 3, 32, 64)).last_hidden_state.shape
        torch.Size([1, 16, 4, 8])
    """

    _fast: Callable[[Tensor], Tensor] | None = None  # images (N, 3, H, W) to the last map (N, h, w, C)

    def __init__(self, config: ConvLlavaVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = ConvLlavaVisionEmbeddings(config)
        self.encoder = ConvLlavaVisionEncoder(config)
        self.post_init()

    def optimize_for_inference(self, precision: str = "auto", size: tuple[int, int] | None = None) -> None:
        """Encode faster from now on, wherever no gradient is wanted.

        Not to the last bit: float32 features stay within 1e-4 of the plain ones, bfloat16 and int8 round as they do.
        The inputs and outputs keep the encoder's own dtype. It holds until weights are loaded, moved or cast, or
        training begins; changes made to weights behind its back are not seen.

        Args:
            precision: "auto", "float32", "bfloat16" or "int8". "auto" takes, on a CPU, what its processor multiplies
                fastest without loss worth mentioning (bfloat16 with AMX or AVX-512, else float32), and on a GPU the
                encoder's own dtype, which is then the only one.
            size: (height, width) of the images expected most often, to choose for.

        Raises:
            ValueError: The precision is unknown or not to be had here, or the weights are quantized already.
        """
        self.undo_optimization()
        if any(type(weight.data) is not Tensor or not weight.is_floating_point() for weight in self.parameters()):
            raise ValueError("the vision encoder's weights are quantized: load them without quantize_vision")
        self.eval()
        if self.device.type == "cpu":
            from .fast_tower import USUAL_SIZE, FastTower

            self._fast = FastTower(self, precision, size or USUAL_SIZE)
        elif self.device.type == "cuda":
            from .gpu_tower import GpuTower

            self._fast = GpuTower(self, precision)
        else:
            raise ValueError(f"there is no faster way on {self.device.type}: use the encoder as it is")

    def use_fused_kernels(self, wanted: bool = True) -> None:
        """Run depthwise convolution and norm as one Triton kernel on a GPU, in training too; equal but for rounding.

        Raises:
            ValueError: The encoder is not on an NVIDIA GPU, or triton is not installed.
        """
        if wanted and self.device.type != "cuda":
            raise ValueError(f"the fused kernels are for NVIDIA GPUs; the vision encoder is on {self.device.type}")
        if wanted and importlib.util.find_spec("triton") is None:
            raise ValueError("the fused kernels need triton, which comes with CUDA builds of torch: pip install triton")
        for module in self.modules():
            if isinstance(module, ConvLlavaVisionLayer):
                module.is_fused = wanted

    def undo_optimization(self) -> None:
        """Be the plain encoder again."""
        self._fast = None

    def train(self, mode: bool = True) -> "ConvLlavaVisionModel":
        """Switch between training and inference; training ends `optimize_for_inference`."""
        if mode:
            self.undo_optimization()
        super().train(mode)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.undo_optimization()  # also where a model loads that this encoder is a part of
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.undo_optimization()  # weights move to another device or dtype
        return super()._apply(*args, **kwargs)

    def forward(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithNoAttention:
        """Encode images, each as if it were alone.

        Args:
            pixel_values: (N, 3, Hmax, Wmax), zero-padded right and bottom.
            image_sizes: int64 (N, 2), true (H, W) of each image. Without it all are Hmax x Wmax.
            output_hidden_states: Also return the maps of the stem and of every stage, (N, C, h, w); only
                without ``image_sizes``.

        Returns:
            ``last_hidden_state``: without ``image_sizes`` the last stage's map (N, C, h, w); with it the visual
            tokens of all images one after another, each row-major: (sum of h_i * w_i, C).

        Raises:
            ValueError: When an image is smaller than one output cell.
        """
        if image_sizes is not None:
            return BaseModelOutputWithNoAttention(last_hidden_state=self._packed_features(pixel_values, image_sizes))
        if not output_hidden_states:
            return BaseModelOutputWithNoAttention(last_hidden_state=self._last_map(pixel_values).permute(0, 3, 1, 2))
        maps = [features.permute(0, 3, 1, 2) for features in self._feature_maps(pixel_values)]  # (N, C, h, w)
        return BaseModelOutputWithNoAttention(last_hidden_state=maps[-1], hidden_states=tuple(maps))

    def _last_map(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C), the fast way if there is one and no gradient is wanted."""
        if self._fast is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._feature_maps(pixel_values)[-1]
        _check_at_least_one_cell(pixel_values, self.config.output_stride)
        return self._fast(pixel_values).to(self.dtype)

    def _packed_features(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """Encode images of different shapes; equal shapes share a batch, padding never enters a convolution."""
        features: list[Tensor | None] = [None] * len(pixel_values)
        for (height, width), indices in _group_by_shape(image_sizes).items():
            group = pixel_values[indices, :, :height, :width]
            tokens = self._last_map(group).flatten(1, 2)  # (n, h * w, C)
            for index, image_tokens in zip(indices, tokens, strict=True):
                features[index] = image_tokens
        return torch.cat([image_tokens for image_tokens in features if image_tokens is not None])


class ConvLlavaVisionBackbone(BackboneMixin, ConvLlavaVisionPreTrainedModel):
    """The same encoder behind transformers' backbone interface, for detectors and segmenters.

    ``feature_maps`` are the outputs of ``config.out_features``, (N, C, h, w), without extra norms.
    """

    has_attentions = False

    def __init__(self, config: ConvLlavaVisionConfig) -> None:
        super().__init__(config)
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]
        self.embeddings = ConvLlavaVisionEmbeddings(config)
        self.encoder = ConvLlavaVisionEncoder(config)
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BackboneOutput:
        """Return the chosen stages' feature maps of images (N, 3, H, W)."""
        maps = self._feature_maps(pixel_values)
        by_name = dict(zip(self.config.stage_names, maps, strict=True))
        chosen = tuple(by_name[name].permute(0, 3, 1, 2) for name in self.config.out_features)
        return BackboneOutput(feature_maps=chosen)


def append_stages(
    tower: ConvLlavaVisionConfig | ConvLlavaVisionModel, depths: Sequence[int], widths: Sequence[int]
) -> Any:
    """Add fresh stages behind a trained encoder (the paper's fifth stage: ``[6], [3072]``).

    Args:
        tower: An encoder, or only its config.
        depths: Layers of each new stage.
        widths: Channels of each new stage.

    Returns:
        A new config, or a new encoder whose first stages hold the old one's weights.

    Raises:
        ValueError: When the two lists differ in length or hold a value below 1.
    """
    config = tower.config if isinstance(tower, ConvLlavaVisionModel) else tower
    grown_config = _append_to_config(config, depths, widths)
    if not isinstance(tower, ConvLlavaVisionModel):
        return grown_config
    grown = ConvLlavaVisionModel(grown_config).to(tower.dtype)
    missing, unexpected = grown.load_state_dict(tower.state_dict(), strict=False)
    assert not unexpected and all(_stage_index(name) >= config.num_stages for name in missing)
    return grown.to(tower.device)


def _append_to_config(
    config: ConvLlavaVisionConfig, depths: Sequence[int], widths: Sequence[int]
) -> ConvLlavaVisionConfig:
    if len(depths) != len(widths):
        raise ValueError(f"{len(depths)} depths but {len(widths)} widths; give one of each per new stage")
    values = deepcopy(config.to_diff_dict())
    for derived in ("model_type", "out_features", "out_indices", "stage_names", "transformers_version"):
        values.pop(derived, None)
    values["depths"] = [*config.depths, *depths]
    values["hidden_sizes"] = [*config.hidden_sizes, *widths]
    return ConvLlavaVisionConfig(**values)


def _stage_index(parameter_name: str) -> int:
    prefix = "encoder.stages."
    return int(parameter_name[len(prefix) :].split(".")[0]) if parameter_name.startswith(prefix) else -1


def _group_by_shape(image_sizes: Tensor) -> dict[tuple[int, int], list[int]]:
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (height, width) in enumerate(image_sizes.tolist()):
        groups.setdefault((height, width), []).append(index)
    return groups


def _check_at_least_one_cell(pixel_values: Tensor, output_stride: int) -> None:
    height, width = pixel_values.shape[-2:]
    if min(height, width) < output_stride:
        raise ValueError(
            f"an image of {height}x{width} pixels is smaller than one output cell of "
            f"{output_stride}x{output_stride}; resize it first"
        )
