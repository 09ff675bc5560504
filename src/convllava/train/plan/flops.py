"""FLOPs of training: forward, backward, and what activation checkpointing computes twice.

Counted as in ``analysis`` (1 multiply-accumulate = 2 FLOPs), with the head at every position, as the loss needs it. In
the backward pass a trained linear layer costs its forward pass twice more: for its weights and for its input. A frozen
layer behind a trained one passes the gradient on and costs its forward pass once more; a frozen layer in front of all
trained ones costs nothing and is computed without a graph.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ...analysis.counting import Cost, attention_macs
from ...analysis.model_cost import geometry_of, projector_cost
from ...analysis.vision import encoder_cost
from ...model import ConvLlavaConfig

REFERENCE_SIDE = 16
"""Side, in visual tokens, of the image that an encoder without a fixed resolution is counted on: its cost is linear."""


@dataclass(frozen=True)
class PartFlops:
    """FLOPs of one part of the model."""

    part: str
    forward: float
    backward: float
    recomputed: float

    @property
    def total(self) -> float:
        """Sum of the three."""
        return self.forward + self.backward + self.recomputed

    def times(self, samples: float) -> "PartFlops":
        """Return the FLOPs of a number of samples."""
        return replace(
            self,
            forward=self.forward * samples,
            backward=self.backward * samples,
            recomputed=self.recomputed * samples,
        )

    def plus(self, other: "PartFlops") -> "PartFlops":
        """Return the sum of both."""
        return replace(
            self,
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            recomputed=self.recomputed + other.recomputed,
        )


@dataclass(frozen=True)
class GradientFlow:
    """Shares of a part's parameters that are trained, and that the gradient passes in the backward pass."""

    trained: float
    passed: float


def gradient_flow(trained: Mapping[str, float]) -> dict[str, GradientFlow]:
    """Follow the gradient through the parts of a model.

    Args:
        trained: Share of each part's parameters that is trained; parts in the order of the forward pass.
    """
    found: dict[str, GradientFlow] = {}
    behind_trained = False
    for part, share in trained.items():
        found[part] = GradientFlow(share, 1.0 if behind_trained else share)
        behind_trained |= share > 0
    return found


def sample_flops(
    config: ConvLlavaConfig,
    flow: Mapping[str, GradientFlow],
    *,
    visual_tokens: float,
    tokens: float,
    checkpointing: bool,
    language: bool = True,
) -> list[PartFlops]:
    """Count the FLOPs of one sample.

    Args:
        config: Configuration of the model.
        flow: Gradient flow by part: "vision_tower ..." as ``analysis`` names its parts, "multi_modal_projector" and
            "language_model".
        visual_tokens: Visual tokens of the sample.
        tokens: All tokens of the sample, visual ones included.
        checkpointing: Whether activations of parts with a graph are computed twice.
        language: Whether projector and language model are used.
    """
    parts = list(_vision(config, flow, visual_tokens, checkpointing))
    if language:
        projector = projector_cost(config.vision_config.hidden_size, config.text_config.hidden_size, 1)
        macs = projector.macs * visual_tokens
        parts.append(_linear("multi_modal_projector", macs, flow["multi_modal_projector"], checkpointing=False))
        parts += _language(config, flow["language_model"], tokens, checkpointing)
    return parts


def reference_image(config: ConvLlavaConfig) -> tuple[int, int]:
    """Return the side in pixels of the image that is counted, and its visual tokens."""
    side = config.resolution or REFERENCE_SIDE * config.output_stride
    return side, (side // config.output_stride) ** 2


def vision_parts(config: ConvLlavaConfig) -> list[Cost]:
    """Count the reference image, part by part, under the names of the plan's modules."""
    side, _ = reference_image(config)
    return [replace(cost, name=f"vision_tower {cost.name}") for cost in encoder_cost(config.vision_config, side, side)]


def _vision(
    config: ConvLlavaConfig, flow: Mapping[str, GradientFlow], visual_tokens: float, checkpointing: bool
) -> Iterator[PartFlops]:
    _, tokens = reference_image(config)
    for cost in vision_parts(config):
        yield _linear(cost.name, cost.macs * visual_tokens / tokens, flow[cost.name], checkpointing)


def _language(config: ConvLlavaConfig, flow: GradientFlow, tokens: float, checkpointing: bool) -> list[PartFlops]:
    geometry = geometry_of(config)
    attention = 2.0 * attention_macs(1, 1, geometry.attention_width) * tokens**2
    return [
        _linear("language_model layers", tokens * geometry.layer_macs, flow, checkpointing),
        PartFlops(
            "language_model attention", attention, 2 * attention * flow.passed, attention * flow.passed * checkpointing
        ),
        _linear("language_model head", tokens * geometry.head_macs, flow, checkpointing=False),
    ]


def _linear(part: str, macs: float, flow: GradientFlow, checkpointing: bool) -> PartFlops:
    forward = 2.0 * macs
    return PartFlops(part, forward, forward * (flow.trained + flow.passed), forward * flow.passed * checkpointing)
