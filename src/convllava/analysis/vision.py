"""Cost of a vision encoder on an image of height x width pixels."""

from dataclasses import dataclass

from transformers import CLIPVisionConfig, PreTrainedConfig

from ..model import ConvLlavaVisionConfig
from ..model.configuration_convllava import STEM_STRIDE
from .counting import Cost, attention_macs, linear_parameters

_DOWNSAMPLING = 2  # kernel size and stride of the convolution between two stages


def encoder_cost(config: PreTrainedConfig, height: int, width: int) -> list[Cost]:
    """Return the costs of the parts of a vision encoder, in the order of execution.

    Raises:
        ValueError: The encoder's architecture is unknown, or the image is smaller than one visual token.
    """
    if isinstance(config, ConvLlavaVisionConfig):
        return convnext_cost(config, height, width)
    if isinstance(config, CLIPVisionConfig):
        return vit_cost(VitGeometry.of_clip(config), height, width)
    raise ValueError(f"cannot count a vision encoder of type {config.model_type!r}: ConvNeXt and CLIP are supported")


def convnext_cost(config: ConvLlavaVisionConfig, height: int, width: int) -> list[Cost]:
    """Return the costs of the stem and the stages of a ConvNeXt."""
    check_image(height, width, config.output_stride)
    rows, columns = height // STEM_STRIDE, width // STEM_STRIDE
    channels = config.hidden_sizes[0]
    # the padded batch and the cropped images of one shape
    pixels = 2 * config.num_channels * height * width
    features = channels * rows * columns
    patch = config.num_channels * STEM_STRIDE**2
    stem = Cost("stem", patch * channels + 3 * channels, patch * features, pixels + pixels // 2 + 2 * features)
    parts, kept = [stem], pixels + features  # feature maps of earlier stages stay alive to the end
    for index, depth in enumerate(config.depths):
        previous, channels, kernel_size = channels, config.hidden_sizes[index], config.kernel_sizes[index]
        parameters = macs = worst = 0
        if index > 0:
            before = previous * rows * columns
            rows, columns = rows // _DOWNSAMPLING, columns // _DOWNSAMPLING
            parameters = 2 * previous + linear_parameters(previous * _DOWNSAMPLING**2, channels)
            macs = rows * columns * previous * _DOWNSAMPLING**2 * channels
            worst = kept + before + channels * rows * columns
        features = channels * rows * columns
        parameters += depth * _layer_parameters(channels, kernel_size)
        macs += depth * features * (kernel_size**2 + 8 * channels)
        has_own_input = index > 0 or depth > 1  # otherwise it is the feature map of the stem, which is kept
        worst = max(worst, kept + _layer_activations(features) + has_own_input * features)
        kept += features
        parts.append(Cost(f"stage {index + 1}", parameters, macs, worst))
    return parts


def _layer_parameters(channels: int, kernel_size: int) -> int:
    """Return the parameters of depthwise convolution, norm, two pointwise convolutions and layer scale."""
    wide = 4 * channels
    products = linear_parameters(channels, wide) + linear_parameters(wide, channels)
    return kernel_size**2 * channels + channels + 2 * channels + products + channels


def _layer_activations(features: int) -> int:
    """Return the elements of the wide features before and after the activation, the peak of a layer."""
    return (4 + 4) * features


@dataclass(frozen=True)
class VitGeometry:
    """Sizes of a vision transformer.

    Attributes:
        width: Hidden size.
        layers: Number of layers.
        mlp: Intermediate size of the feed-forward network.
        patch: Side of a patch, in pixels.
        class_tokens: Number of class tokens.
        positions: Number of learned position embeddings, class tokens included.
        norms: Number of layer norms outside the layers.
    """

    width: int
    layers: int
    mlp: int
    patch: int
    class_tokens: int
    positions: int
    norms: int = 2

    @classmethod
    def of_clip(cls, config: CLIPVisionConfig) -> "VitGeometry":
        """Return the sizes of a CLIP encoder. All layers are counted; LLaVA uses the features of the last but one."""
        patches = (config.image_size // config.patch_size) ** 2
        return cls(
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            mlp=config.intermediate_size,
            patch=config.patch_size,
            class_tokens=1,
            positions=patches + 1,
        )

    def patches(self, height: int, width: int) -> int:
        """Return the number of complete patches of an image."""
        return (height // self.patch) * (width // self.patch)


def vit_cost(geometry: VitGeometry, height: int, width: int) -> list[Cost]:
    """Return the costs of the patch embedding and the layers of a vision transformer."""
    check_image(height, width, geometry.patch)
    dim, patches = geometry.width, geometry.patches(height, width)
    tokens = patches + geometry.class_tokens
    patch = 3 * geometry.patch**2
    outside = (geometry.class_tokens + geometry.positions + 2 * geometry.norms) * dim
    embedding = Cost("patches", patch * dim + outside, patches * patch * dim, 3 * height * width + 2 * tokens * dim)
    layer = 4 * linear_parameters(dim, dim) + 4 * dim
    layer += linear_parameters(dim, geometry.mlp) + linear_parameters(geometry.mlp, dim)
    macs = tokens * (4 * dim**2 + 2 * dim * geometry.mlp) + attention_macs(tokens, tokens, dim)
    worst = 3 * height * width + tokens * (2 * geometry.mlp + 3 * dim)
    return [embedding, Cost("layers", geometry.layers * layer, geometry.layers * macs, worst)]


def check_image(height: int, width: int, stride: int) -> None:
    """Check that an image gives at least one feature.

    Raises:
        ValueError: A side is smaller than ``stride`` pixels.
    """
    if min(height, width) < stride:
        raise ValueError(
            f"an image of height {height} and width {width} is smaller than one visual token ({stride}x{stride} "
            "pixels): give a larger height and width"
        )
