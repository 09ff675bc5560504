"""Published checkpoints by their exact hub ids, and what their files leave out."""

from dataclasses import dataclass, field

FIVE_STAGES = ((3, 3, 27, 3, 6), (192, 384, 768, 1536, 3072))
FOUR_STAGES = ((3, 3, 27, 3), (192, 384, 768, 1536))
"""Depths and widths of ConvNeXt-L, with and without the fifth stage (paper section 3.3, appendix B)."""

Shape = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Published:
    """What is known of a published checkpoint.

    Args:
        resolution: Side of its images in pixels.
        shape: Depths and widths of its ConvNeXt, None for another encoder.
        training_stage: The one it is the result of, if it is a whole model.
    """

    resolution: int
    shape: Shape | None = None
    training_stage: str | None = None


def _released() -> dict[str, Published]:
    table = {}
    for resolution in (768, 1024, 1536):
        for kind, stage in (("pretrain", "pretrain"), ("sft", "instruct")):
            table[f"ConvLLaVA/ConvLLaVA-{kind}-{resolution}"] = Published(resolution, FIVE_STAGES, stage)
        table[f"ConvLLaVA/ConvLLaVA-ConvNeXt-{resolution}"] = Published(resolution, FIVE_STAGES)
    return table


PUBLISHED: dict[str, Published] = {
    **_released(),
    "ConvLLaVA/LAION-CLIP-ConvNeXt-Large-512": Published(512, FOUR_STAGES),
    "openai/clip-vit-large-patch14-336": Published(336),
    "liuhaotian/llava-v1.5-7b": Published(336, training_stage="instruct"),
    "llava-hf/llava-1.5-7b-hf": Published(336, training_stage="instruct"),
}


@dataclass(frozen=True)
class TowerEpsilon:
    """Encoders whose LayerNorms have another epsilon than 1e-6; their tensors do not tell, their shape does."""

    by_shape: dict[Shape, float] = field(
        default_factory=lambda: {((3, 4, 30, 3), (384, 768, 1536, 3072)): 1e-5}  # OpenCLIP's convnext_xxlarge
    )

    def of(self, depths: list[int], hidden_sizes: list[int]) -> float:
        """Return the epsilon of an encoder of this shape, whatever was appended to it."""
        for (known_depths, known_sizes), epsilon in self.by_shape.items():
            stages = len(known_depths)
            if (tuple(depths[:stages]), tuple(hidden_sizes[:stages])) == (known_depths, known_sizes):
                return epsilon
        return 1e-6
