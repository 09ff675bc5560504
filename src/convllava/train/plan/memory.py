"""Memory of one device in training: an estimate from sizes alone.

Weights are float32 (with bfloat16: master weights, and a bfloat16 copy of the trained ones; frozen weights next to
adapters are bfloat16 or 4 bits wide), gradients float32. AdamW keeps two float32 numbers per trained parameter, and
data parallelism a reduction buffer as large as the gradients. Activations: with checkpointing the input of every layer
that has a graph and the inside of the largest one, without it the inside of all; fused attention without T x T scores;
and the logits, which are held as computed, in float32, as log probabilities and as their gradient. Not counted: the
allocator's fragmentation, buffers of collectives and the CUDA context (together 2 to 6 GB), padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ...analysis.model_cost import geometry_of
from ...model import ConvLlavaConfig, ConvLlavaVisionConfig
from .flops import GradientFlow, reference_image, vision_parts

GIB = 1 << 30
_CONVNEXT_INSIDE = 12
"""Activations inside a ConvNeXt layer per element of its input: convolved, normalized, four times wide before and after
the activation function, projected, scaled."""
_LOGIT_BYTES = 16
"""Bytes per logit: bfloat16 logits and their gradient, float32 logits, log probabilities and gradient."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device by their use."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of the four."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Sizes:
    """Sizes that determine the memory of weights, gradients and optimizer.

    Attributes:
        weight_bytes: Bytes of all weights.
        trained: Number of trained parameters.
        largest_unit: Parameters of the largest unit that sharding gathers at a time.
        bytes_per_number: Bytes per activation: 2 in bfloat16, else 4.
        devices: Number of devices.
    """

    weight_bytes: float
    trained: int
    largest_unit: int
    bytes_per_number: int
    devices: int


def replicated(sizes: Sizes, activations: float) -> Memory:
    """Return the memory of each device if all hold everything (DDP)."""
    copies = sizes.trained * sizes.bytes_per_number if sizes.bytes_per_number < 4 else 0
    reduction = 4 * sizes.trained if sizes.devices > 1 else 0
    return Memory(sizes.weight_bytes + copies, 4 * sizes.trained + reduction, 8 * sizes.trained, activations)


def sharded(sizes: Sizes, activations: float) -> Memory:
    """Return the memory of each device if weights, gradients and optimizer are sharded (FSDP2, ZeRO-3).

    Two units are gathered at a time: the one in use and the next.
    """
    gathered = 2 * sizes.bytes_per_number * sizes.largest_unit if sizes.devices > 1 else 0
    share = 1 / sizes.devices
    return Memory(
        sizes.weight_bytes * share + gathered, 4 * sizes.trained * share, 8 * sizes.trained * share, activations
    )


PLACEMENTS = {"replicated": replicated, "sharded": sharded}


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one device for any micro-batch.

    Attributes:
        sizes: Sizes of weights, gradients and optimizer.
        activations_per_sample: Bytes of one sample's activations.
    """

    sizes: Sizes
    activations_per_sample: float

    def at(self, placement: str, batch: int) -> Memory:
        """Return the memory with ``batch`` samples in a micro-batch; ``placement`` is "replicated" or "sharded"."""
        return PLACEMENTS[placement](self.sizes, batch * self.activations_per_sample)

    def largest_batches(self, share: int, device_memory: float | None) -> dict[str, int]:
        """Return the largest micro-batch that fits, by placement: a divisor of a device's share, 0 if none fits.

        Args:
            share: Samples of the global batch that one device takes.
            device_memory: Memory of the device in bytes; without it the result is empty.
        """
        if device_memory is None:
            return {}
        divisors = [batch for batch in range(1, share + 1) if share % batch == 0]
        return {
            placement: max((one for one in divisors if self.at(placement, one).total <= device_memory), default=0)
            for placement in PLACEMENTS
        }


def activation_bytes(
    config: ConvLlavaConfig,
    flow: Mapping[str, GradientFlow],
    *,
    visual_tokens: float,
    tokens: float,
    checkpointing: bool,
    bytes_per_number: int,
    language: bool = True,
) -> float:
    """Estimate the bytes of one sample's activations.

    Args:
        config: Configuration of the model.
        flow: Gradient flow by part, see ``flops.sample_flops``.
        visual_tokens: Visual tokens of the sample.
        tokens: All tokens of the sample, visual ones included.
        checkpointing: Whether layers with a graph keep only their input.
        bytes_per_number: Bytes per activation.
        language: Whether the language model is used.
    """
    elements = _vision_elements(config, flow, checkpointing) * visual_tokens / reference_image(config)[1]
    if not language:
        return elements * bytes_per_number
    geometry = geometry_of(config)
    layers, width = config.text_config.num_hidden_layers, geometry.hidden_size
    inside = 9 * width + 4 * geometry.widest  # norms, queries, keys, values, output; gate, up, activation, product
    passed = flow["language_model"].passed
    kept = layers * width + inside if checkpointing else layers * inside
    elements += tokens * (kept if passed else geometry.widest * 3)
    return elements * bytes_per_number + tokens * geometry.vocab_size * _LOGIT_BYTES


def _vision_elements(config: ConvLlavaConfig, flow: Mapping[str, GradientFlow], checkpointing: bool) -> float:
    """Return the activations for the reference image: stored for the backward pass, or the peak without a graph."""
    parts = vision_parts(config)
    without_graph = max((part.activation_elements for part in parts if flow[part.name].passed == 0), default=0)
    if not isinstance(config.vision_config, ConvLlavaVisionConfig):
        return without_graph + _clip_elements(config, flow["vision_tower layers"].passed, checkpointing)
    side, _ = reference_image(config)
    kept, largest = 0.0, 0.0
    for stage, (depth, channels) in enumerate(
        zip(config.vision_config.depths, config.vision_config.hidden_sizes, strict=True)
    ):
        passed = flow[f"vision_tower stage {stage + 1}"].passed
        features = channels * (side // (4 << stage)) ** 2
        kept += passed * depth * features * (1 if checkpointing else _CONVNEXT_INSIDE)
        largest = max(largest, _CONVNEXT_INSIDE * features * (passed > 0))
    return without_graph + kept + (largest if checkpointing else 0.0)


def _clip_elements(config: ConvLlavaConfig, passed: float, checkpointing: bool) -> float:
    vision = config.vision_config
    tokens = reference_image(config)[1] + 1
    inside = 9 * vision.hidden_size + 2 * vision.intermediate_size
    layers = passed * vision.num_hidden_layers
    per_token = layers * vision.hidden_size + inside * (passed > 0) if checkpointing else layers * inside
    return tokens * per_token
