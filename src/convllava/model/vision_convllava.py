"""The vision encoder: a ConvNeXt with any number of stages on images of any shape.

Papers: ConvNeXt, "A ConvNet for the 2020s" (https://arxiv.org/abs/2201.03545); the fifth stage, ConvLLaVA
(https://arxiv.org/abs/2405.15738), sections 3.3 and 4.4 and appendix B.

Parameter names equal those of transformers' ``ConvNextModel`` (``embeddings...``, ``encoder.stages.N...``), so that
checkpoints need no mapping. There is no final norm: ConvLLaVA takes the feature map before it.

Shapes: N images of H x W pixels; a feature map has h x w positions of C channels, h = H // stride. One position of the
last map is one visual token. Features keep their channels last, (N, h, w, C), from the stem to the last stage. A
convolution reads the same memory through a permuted view, which PyTorch recognizes as its channels-last format, so
that no layout is ever changed by a copy.

Reading order: layer, stage, stem, encoder, backbone form.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithNoAttention

from ..compat import ReportsWeightChanges
from .configuration_convllava import STEM_STRIDE, ConvLlavaVisionConfig
from .depthwise import depthwise_convolve


def _convolve(convolution: nn.Module, features: Tensor) -> Tensor:  # (N, h, w, C) -> (N, h', w', C')
    """Apply a convolution to features whose channels are last, without a copy."""
    output = convolution(features.permute(0, 3, 1, 2))
    return output.permute(0, 2, 3, 1).contiguous()  # already so on CPU and CUDA; costs nothing then


class ConvLlavaVisionLayer(GradientCheckpointingLayer):
    """One ConvNeXt block: depthwise convolution, norm, two pointwise products, layer scale, residual."""

    fused_convolve_and_norm: Callable[["ConvLlavaVisionLayer", Tensor], Tensor] | None = None
    """Replacement for convolution and norm, (N, h, w, C) -> same, that the backend "triton" sets; None is eager."""

    def __init__(self, config: ConvLlavaVisionConfig, index: int) -> None:
        super().__init__()
        width, kernel_size = config.hidden_sizes[index], config.kernel_sizes[index]
        self.dwconv = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.act = ACT2FN[config.hidden_act]
        self.pwconv2 = nn.Linear(4 * width, width)
        self.layer_scale_parameter = nn.Parameter(torch.full((width,), config.layer_scale_init_value))

    def forward(self, features: Tensor) -> Tensor:  # (N, h, w, C) -> same
        """Return the features after the block."""
        hidden = self.pwconv2(self.act(self.pwconv1(self._convolve_and_norm(features))))
        return torch.addcmul(features, hidden, self.layer_scale_parameter)

    def _convolve_and_norm(self, features: Tensor) -> Tensor:  # (N, h, w, C) -> same
        if self.fused_convolve_and_norm is not None:
            return self.fused_convolve_and_norm(self, features)
        convolved = depthwise_convolve(self.dwconv, features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.layernorm(convolved.contiguous())


class ConvLlavaVisionStage(nn.Module):
    """Downsampling by 2 (in every stage but the first), then layers of one width."""

    def __init__(self, config: ConvLlavaVisionConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_sizes[index]
        self.downsampling_layer = nn.ModuleList()
        if index > 0:
            previous = config.hidden_sizes[index - 1]
            self.downsampling_layer.append(nn.LayerNorm(previous, eps=config.layer_norm_eps))
            self.downsampling_layer.append(nn.Conv2d(previous, width, kernel_size=2, stride=2))
        self.layers = nn.ModuleList(ConvLlavaVisionLayer(config, index) for _ in range(config.depths[index]))

    def forward(self, features: Tensor) -> Tensor:  # (N, h, w, C) -> (N, h // 2, w // 2, C')
        """Return the features after the stage."""
        features = self.downsample(features)
        for layer in self.layers:
            features = layer(features)
        return features

    def downsample(self, features: Tensor) -> Tensor:  # (N, h, w, C) -> (N, h // 2, w // 2, C')
        """Halve height and width; the first stage returns its input."""
        if not len(self.downsampling_layer):
            return features
        norm, convolution = self.downsampling_layer
        return _convolve(convolution, norm(features))


class ConvLlavaVisionEmbeddings(nn.Module):
    """The stem: one feature vector for each patch of 4 x 4 pixels."""

    def __init__(self, config: ConvLlavaVisionConfig) -> None:
        super().__init__()
        width = config.hidden_sizes[0]
        self.patch_embeddings = nn.Conv2d(config.num_channels, width, STEM_STRIDE, stride=STEM_STRIDE)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, H // 4, W // 4, C)
        """Return the features of the patches."""
        pixels = pixel_values.contiguous(memory_format=torch.channels_last)
        return self.layernorm(_convolve(self.patch_embeddings, pixels.permute(0, 2, 3, 1)))


class ConvLlavaVisionEncoder(nn.Module):
    """The stages, first to last."""

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

    def feature_maps(self, pixel_values: Tensor) -> list[Tensor]:
        """Compute the outputs of the stem and of every stage eagerly.

        Args:
            pixel_values: (N, 3, H, W).

        Returns:
            Feature maps (N, h, w, C), largest first.

        Raises:
            ValueError: The images are smaller than one position of the last map.
        """
        _check_at_least_one_position(pixel_values, self.config.output_stride)
        features = self.embeddings(pixel_values.to(self.dtype))
        maps = [features]
        for stage in self.encoder.stages:
            features = stage(features)
            maps.append(features)
        return maps


class EncoderBackend(Protocol):
    """A faster or cached computation of the encoder's last feature map; see ``convllava.model.acceleration``."""

    name: str
    """Name by which `ConvLlavaVisionModel.set_backend` builds it."""

    for_training: bool
    """Whether it also serves while gradients are enabled; it then has to follow changes of the weights by itself."""

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C) in the encoder's dtype, for images (N, 3, H, W)."""

    def close(self) -> None:
        """Undo whatever the backend changed in the encoder; called when another backend is set."""


BACKENDS: dict[str, Callable[["ConvLlavaVisionModel", tuple[int, int] | None], EncoderBackend]] = {}
"""Builders of backends by name; they take an encoder and the expected (height, width).

The package registers those of ``acceleration``. The code inside an exported checkpoint registers none, and its encoder
is always eager.
"""


class ConvLlavaVisionModel(ReportsWeightChanges, ConvLlavaVisionPreTrainedModel):
    """The vision encoder of ConvLLaVA.

    The last feature map is computed eagerly, layer by layer, unless :meth:`set_backend` chose a backend:

    ================  =====================================================================================
    ``eager``         The plain layers, on any device; the default.
    ``auto``          For inference, the fastest for the device: ``cpu-bfloat16`` or ``cpu-float32``, ``cuda``.
    ``cpu-float32``   Packed weights and cache-sized chunks; within 1e-4 of the eager features.
    ``cpu-bfloat16``  The same in bfloat16, which processors with AMX or AVX-512 multiply several times as fast.
    ``cpu-int8``      8-bit products; features differ by one to three hundredths.
    ``cuda``          Fused Triton kernels, replayed as CUDA graphs, in the encoder's dtype.
    ``triton``        Depthwise convolution and norm as one differentiable Triton kernel: for training on a GPU.
    ================  =====================================================================================

    A backend for inference is bypassed while gradients are enabled, and the encoder falls back to ``eager`` when its
    weights are loaded, moved or cast, when training begins, and in copies (``deepcopy``, pickle), since packed weights
    and graphs belong to one process and one state of the weights. Weights changed in place by other code are not
    noticed. ``triton`` reads the weights at every call and stays until the next :meth:`set_backend`.

    Example:
        >>> tower = ConvLlavaVisionModel(ConvLlavaVisionConfig(depths=[1, 1], hidden_sizes=[8, 16]))
        >>> tower(torch.zeros(1, 3, 32, 64)).last_hidden_state.shape
        torch.Size([1, 16, 4, 8])
    """

    _backend: EncoderBackend | None = None

    def __init__(self, config: ConvLlavaVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = ConvLlavaVisionEmbeddings(config)
        self.encoder = ConvLlavaVisionEncoder(config)
        self.post_init()

    @property
    def patch_size(self) -> int:
        """Pixels per side of one visual token, under the name that transformers' LLaVA asks an encoder for."""
        return self.config.output_stride

    @property
    def backend(self) -> EncoderBackend | None:
        """The backend in use; None is the eager one."""
        return self._backend

    def set_backend(self, backend: str | EncoderBackend = "auto", *, size: tuple[int, int] | None = None) -> None:
        """Choose how the last feature map is computed from now on.

        Args:
            backend: A name from the table of this class, or a backend of your own.
            size: (height, width) of the images expected most often, to tune for; 768 x 768 by default.

        Raises:
            ValueError: The backend is unknown or unavailable on this device, or the encoder's weights are quantized.
        """
        if self._backend is not None:
            self._backend.close()
        self._backend = None
        if not isinstance(backend, str):
            self._backend = backend
        elif backend != "eager":
            self._backend = _build_backend(self, backend, size)
        if self._backend is not None and not self._backend.for_training:
            self.eval()

    def weights_will_change(self) -> None:
        """Return to the eager backend unless the present one follows changes of the weights by itself."""
        if self._backend is not None and not self._backend.for_training:
            self.set_backend("eager")

    def train(self, mode: bool = True) -> "ConvLlavaVisionModel":
        """Switch between training and evaluation; training ends a backend for inference."""
        if mode:
            self.weights_will_change()
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which has no backend for inference."""
        is_copied = self._backend is not None and self._backend.for_training
        return {**self.__dict__, "_backend": self._backend if is_copied else None}

    def forward(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor | None = None,
        output_hidden_states: bool | int | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithNoAttention:
        """Encode images, each as if it were alone.

        Args:
            pixel_values: (N, 3, Hmax, Wmax), zero-padded right and bottom.
            image_sizes: int64 (N, 2), true (H, W) of each image. Without it all are Hmax x Wmax.
            output_hidden_states: Whether to return the maps of the stem and of every stage too, (N, C, h, w),
                computed eagerly; only without ``image_sizes``.

        Returns:
            ``last_hidden_state``: without ``image_sizes`` the last stage's map (N, C, h, w); with it the visual
            tokens of all images one after another, each image row-major: (sum of h_i * w_i, C). With
            ``config.flatten_output``, see `_flat_output`.

        Raises:
            ValueError: An image is smaller than one position of the last map.
        """
        if self.config.flatten_output:
            return self._flat_output(pixel_values, image_sizes, output_hidden_states)
        if image_sizes is not None:
            return BaseModelOutputWithNoAttention(last_hidden_state=self._packed_features(pixel_values, image_sizes))
        if not output_hidden_states:
            return BaseModelOutputWithNoAttention(last_hidden_state=self._last_map(pixel_values).permute(0, 3, 1, 2))
        maps = [features.permute(0, 3, 1, 2) for features in self.feature_maps(pixel_values)]  # (N, C, h, w)
        return BaseModelOutputWithNoAttention(last_hidden_state=maps[-1], hidden_states=tuple(maps))

    def _flat_output(
        self, pixel_values: Tensor, image_sizes: Tensor | None, output_hidden_states: bool | int | None
    ) -> BaseModelOutputWithNoAttention:
        """Encode images as transformers' LLaVA expects it.

        Returns:
            ``last_hidden_state``: (N, h * w, C), or with ``image_sizes`` (1, sum of h_i * w_i, C).
            ``hidden_states``, if asked for: the same for the stem and every stage; of the last stage alone with
            ``image_sizes``, or where LLaVA asks for layer -1.
        """
        if image_sizes is not None:
            tokens = self._packed_features(pixel_values, image_sizes).unsqueeze(0)  # (1, sum of h_i * w_i, C)
        elif output_hidden_states and (output_hidden_states is True or output_hidden_states != -1):
            every = tuple(features.flatten(1, 2) for features in self.feature_maps(pixel_values))  # each (N, h * w, C)
            return BaseModelOutputWithNoAttention(last_hidden_state=every[-1], hidden_states=every)
        else:
            tokens = self._last_map(pixel_values).flatten(1, 2)  # (N, h * w, C)
        hidden_states = (tokens,) if output_hidden_states else None
        return BaseModelOutputWithNoAttention(last_hidden_state=tokens, hidden_states=hidden_states)

    def _last_map(self, pixel_values: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, h, w, C)
        """Return the last stage's features from the backend, or eagerly where it does not serve."""
        backend = self._backend
        if backend is None or torch.compiler.is_compiling() or (torch.is_grad_enabled() and not backend.for_training):
            return self.feature_maps(pixel_values)[-1]
        _check_at_least_one_position(pixel_values, self.config.output_stride)
        return backend(pixel_values)

    def _packed_features(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """Return the visual tokens (sum of h_i * w_i, C) of images (N, 3, Hmax, Wmax) with sizes (N, 2).

        Equal shapes share a batch, and padding never enters a convolution.
        """
        features: list[Tensor | None] = [None] * len(pixel_values)
        for (height, width), indices in _group_by_shape(image_sizes).items():
            group = pixel_values[indices, :, :height, :width]
            tokens = self._last_map(group).flatten(1, 2)  # (n, h * w, C)
            for index, image_tokens in zip(indices, tokens, strict=True):
                features[index] = image_tokens
        return torch.cat([image_tokens for image_tokens in features if image_tokens is not None])


class ConvLlavaVisionBackbone(BackboneMixin, ConvLlavaVisionPreTrainedModel):
    """The encoder with transformers' backbone interface, for detectors and segmenters.

    ``feature_maps`` are the outputs of ``config.out_features``, each (N, C, h, w), without extra norms.
    """

    has_attentions = False

    def __init__(self, config: ConvLlavaVisionConfig) -> None:
        super().__init__(config)
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]
        self.embeddings = ConvLlavaVisionEmbeddings(config)
        self.encoder = ConvLlavaVisionEncoder(config)
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BackboneOutput:
        """Return the feature maps (N, C, h, w) of the chosen stages for images (N, 3, H, W)."""
        maps = self.feature_maps(pixel_values)
        by_name = dict(zip(self.config.stage_names, maps, strict=True))
        chosen = tuple(by_name[name].permute(0, 3, 1, 2) for name in self.config.out_features)
        return BackboneOutput(feature_maps=chosen)


def _group_by_shape(image_sizes: Tensor) -> dict[tuple[int, int], list[int]]:
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (height, width) in enumerate(image_sizes.tolist()):
        groups.setdefault((height, width), []).append(index)
    return groups


def _check_at_least_one_position(pixel_values: Tensor, output_stride: int) -> None:
    height, width = pixel_values.shape[-2:]
    if min(height, width) < output_stride:
        raise ValueError(
            f"an image of {height}x{width} pixels is smaller than one visual token of "
            f"{output_stride}x{output_stride}: resize it first"
        )


def _build_backend(tower: ConvLlavaVisionModel, name: str, size: tuple[int, int] | None) -> EncoderBackend:
    if name not in BACKENDS:
        known = ", ".join(["eager", *BACKENDS])
        where = "" if BACKENDS else "; the faster ones are in the convllava package, not in a checkpoint's own code"
        raise ValueError(f"backend is {name!r}: choose one of {known}{where}")
    return BACKENDS[name](tower, size)
