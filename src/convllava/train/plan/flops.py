"""What training costs in FLOPs: forward, backward and what activation checkpointing computes twice.

Counted as in ``analysis`` (1 multiply-accumulate = 2 FLOPs), with the head on every position, as the loss needs it. A
trained linear layer costs its forward twice more on the way back: once for its weights, once for its input. A frozen
one that lies behind something trained passes the gradient on, so it costs its forward once more; one in front of
everything trained costs nothing on the way back and is computed without a graph.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ...analysis.counting import Cost, attention_macs
from ...analysis.model_cost import geometry_of, projector_cost
from ...analysis.vision import encoder_cost
from ...model import ConvLlavaConfig

REFERENCE_CELLS = 16
"""Side of the image, in cells, on which an encoder without a fixed resolution is counted: its cost is linear."""


@dataclass(frozen=True)
class PartFlops:
    """FLOPs of one part of the model."""

    part: str
    forward: float
    backward: float
    recomputed: float

    @property
    def total(self) -> float:
        """All together."""
        return self.forward + self.backward + self.recomputed

    def times(self, samples: float) -> "PartFlops":
        """Return the FLOPs of that many samples."""
        return replace(
            self,
            forward=self.forward * samples,
            backward=self.backward * samples,
            recomputed=self.recomputed * samples,
        )

    def plus(self, other: "PartFlops") -> "PartFlops":
        """Return both together."""
        return replace(
            self,
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            recomputed=self.recomputed + other.recomputed,
        )


@dataclass(frozen=True)
class Flow:
    """How much of a part is trained, and how much of it the gradient passes; shares of its parameters."""

    trained: float
    passed: float


def flows(trained: Mapping[str, float]) -> dict[str, Flow]:
    """Follow the gradient through parts in the order in which they run.

    Args:
        trained: Share of each part's parameters that is trained.
    """
    found: dict[str, Flow] = {}
    behind_something_trained = False
    for part, share in trained.items():
        found[part] = Flow(share, 1.0 if behind_something_trained else share)
        behind_something_trained |= share > 0
    return found


def sample_flops(
    config: ConvLlavaConfig,
    flow: Mapping[str, Flow],
    *,
    visual_tokens: float,
    tokens: float,
    checkpointing: bool,
    language: bool = True,
) -> list[PartFlops]:
    """Count one sample.

    Args:
        config: Of the model.
        flow: By part: "vision_tower ..." as ``analysis`` names its parts, "multi_modal_projector", "language_model".
        visual_tokens: Of its images.
        tokens: Of the whole row, visual ones included.
        checkpointing: Whether activations of parts with a graph are computed twice.
        language: Whether the projector and the language model take part.
    """
    parts = list(_vision(config, flow, visual_tokens, checkpointing))
    if language:
        projector = projector_cost(config.vision_config.hidden_size, config.text_config.hidden_size, 1)
        macs = projector.macs * visual_tokens
        parts.append(_linear("multi_modal_projector", macs, flow["multi_modal_projector"], checkpointing=False))
        parts += _language(config, flow["language_model"], tokens, checkpointing)
    return parts


def reference_image(config: ConvLlavaConfig) -> tuple[int, int]:
    """Return the side of an image to count on, in pixels, and its visual tokens."""
    side = config.resolution or REFERENCE_CELLS * config.output_stride
    return side, (side // config.output_stride) ** 2


def vision_parts(config: ConvLlavaConfig) -> list[Cost]:
    """Count the reference image, part by part, under the names of the plan."""
    side, _ = reference_image(config)
    return [replace(cost, name=f"vision_tower {cost.name}") for cost in encoder_cost(config.vision_config, side, side)]


def _vision(
    config: ConvLlavaConfig, flow: Mapping[str, Flow], visual_tokens: float, checkpointing: bool
) -> Iterator[PartFlops]:
    _, tokens = reference_image(config)
    for cost in vision_parts(config):
        yield _linear(cost.name, cost.macs * visual_tokens / tokens, flow[cost.name], checkpointing)


def _language(config: ConvLlavaConfig, flow: Flow, tokens: float, checkpointing: bool) -> list[PartFlops]:
    geometry = geometry_of(config)
    attention = 2.0 * attention_macs(1, 1, geometry.attention_width) * tokens**2
    return [
        _linear("language_model layers", tokens * geometry.layer_macs, flow, checkpointing),
        PartFlops(
            "language_model attention", attention, 2 * attention * flow.passed, attention * flow.passed * checkpointing
        ),
        _linear("language_model head", tokens * geometry.head_macs, flow, checkpointing=False),
    ]


def _linear(part: str, macs: float, flow: Flow, checkpointing: bool) -> PartFlops:
    forward = 2.0 * macs
    return PartFlops(part, forward, forward * (flow.trained + flow.passed), forward * flow.passed * checkpointing)
