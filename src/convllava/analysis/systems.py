"""The systems of the paper's Table 1 and Figure 2, each from its published geometry.

Sources: LLaVA-1.5 (Liu et al., arXiv 2310.03744), LLaVA-NeXT (Liu et al., January 2024), OtterHD (Li et al., arXiv
2311.04219) with Fuyu-8B's configuration, Mini-Gemini (Li et al., arXiv 2403.18814) with its published code and
configurations, Qwen-VL (Bai et al., arXiv 2308.12966) with its configuration, ConvLLaVA (Ge et al., arXiv
2405.15738). Language models of 7B are Vicuna-7B v1.5 unless the system has its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import AutoConfig, CLIPVisionConfig

from ..model import ConvLlavaVisionConfig, presets
from ..model.presets import CONVNEXT_L_FIVE_STAGES, CONVNEXT_L_FOUR_STAGES, VICUNA_7B
from .counting import Cost, attention_macs, linear_parameters, total
from .language import LanguageModelGeometry, language_model_geometry
from .model_cost import projector_cost
from .vision import VitGeometry, convnext_cost, vit_cost

CLIP_L_336 = VitGeometry.of_clip(CLIPVisionConfig.from_dict(presets.CLIP_L_336))
"""CLIP ViT-L/14 at 336 pixels."""

QWEN_VIT = VitGeometry(width=1664, layers=48, mlp=8192, patch=14, class_tokens=0, positions=256, norms=1)
"""ViT-bigG of Qwen-VL, without a class token; its 16 x 16 positions are interpolated."""

FUYU_8B = {
    "model_type": "persimmon",
    "vocab_size": 262144,
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "qk_layernorm": True,
    "tie_word_embeddings": False,
}
FUYU_PATCH = 30

QWEN_7B = {
    "model_type": "qwen2",  # Qwen-7B has the same layers: biases on queries, keys and values only
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
}
QWEN_QUERIES = 256


@dataclass(frozen=True)
class Design:
    """The design of a system, as the check columns of the paper's Table 1 compare it.

    Attributes:
        encoder: Vision encoder, with the number of views where there are several.
        complexity: Growth of the encoder's cost with the number of pixels: "linear" or "quadratic".
        aspect_ratios: Shapes that an image may keep: "fixed", "listed" or "any".
        cropping: Whether an image is cut into views that are encoded one by one.
        extra_encoder: Whether a second encoder sees the image.
    """

    encoder: str
    complexity: str
    aspect_ratios: str
    cropping: bool = False
    extra_encoder: bool = False


@dataclass(frozen=True)
class System:
    """A published model at one resolution.

    Attributes:
        name: Name in the paper.
        resolution: Side of the square image, in pixels.
        visual_tokens: Number of visual tokens in the language model.
        encoder: Costs of the parts before the language model: encoders, resamplers, projector.
        language: Sizes of the language model.
        design: The design, as Table 1 compares it.
        paper_tokens: Visual tokens in the paper's tables; None where the paper states none.
    """

    name: str
    resolution: int
    visual_tokens: int
    encoder: tuple[Cost, ...]
    language: LanguageModelGeometry
    design: Design
    paper_tokens: int | None = None

    @property
    def vision(self) -> Cost:
        """Cost of all parts before the language model."""
        return total("vision", self.encoder)

    def prefill(self, text_tokens: int = 0) -> Cost:
        """Return the cost of prefill with the visual tokens and ``text_tokens``."""
        return total("language model", self.language.prefill(self.visual_tokens + text_tokens))

    def flops(self, text_tokens: int = 0) -> int:
        """Return the FLOPs to the first token."""
        return self.vision.flops + self.prefill(text_tokens).flops


def vicuna_7b() -> LanguageModelGeometry:
    """Return the sizes of Vicuna-7B."""
    return _language(VICUNA_7B)


def _language(values: dict[str, object]) -> LanguageModelGeometry:
    options = dict(values)
    model_type = str(options.pop("model_type"))
    return language_model_geometry(AutoConfig.for_model(model_type, **options))


def _times(part: Cost, number: int) -> Cost:
    """Return the cost of the same weights on several images, one after the other."""
    return replace(part, macs=number * part.macs)


def llava_1_5(resolution: int = 336) -> System:
    """Return LLaVA-1.5: CLIP ViT-L/14 at its own resolution."""
    return replace(vit_l(resolution), name="LLaVA-1.5", design=Design("ViT-L/14", "quadratic", "fixed"))


def vit_l(resolution: int) -> System:
    """Return ViT-L/14 with Vicuna-7B at any resolution (the red line of Figure 2)."""
    language = vicuna_7b()
    patches = CLIP_L_336.patches(resolution, resolution)
    parts = [*vit_cost(CLIP_L_336, resolution, resolution), projector_cost(1024, language.hidden_size, patches)]
    return System("ViT-L", resolution, patches, tuple(parts), language, Design("ViT-L/14", "quadratic", "fixed"))


def llava_next(resolution: int = 672) -> System:
    """Return LLaVA-NeXT: 2 x 2 crops of 336 pixels and the full image at 336, all tokens kept."""
    language = vicuna_7b()
    views = (resolution // 336) ** 2 + 1
    tokens = views * CLIP_L_336.patches(336, 336)
    parts = [_times(part, views) for part in vit_cost(CLIP_L_336, 336, 336)]
    parts.append(projector_cost(1024, language.hidden_size, tokens))
    design = Design(f"ViT-L/14 on {views} views", "linear", "listed", cropping=True)
    return System("LLaVA-NeXT", resolution, tokens, tuple(parts), language, design)


def otter_hd(resolution: int = 1024) -> System:
    """Return OtterHD: patches of 30 pixels, projected into an 8B language model (newline tokens not counted)."""
    language = _language(FUYU_8B)
    tokens = (-(-resolution // FUYU_PATCH)) ** 2
    patch = 3 * FUYU_PATCH**2
    width = language.hidden_size
    part = Cost("patches", linear_parameters(patch, width), tokens * patch * width, tokens * (patch + width))
    return System("OtterHD", resolution, tokens, (part,), language, Design("none", "quadratic", "any"))


def mini_gemini_hd(resolution: int = 1536) -> System:
    """Return MiniGemini-HD: the five views of LLaVA-NeXT, which query the features of a ConvNeXt-L."""
    language = vicuna_7b()
    views, patches = 5, CLIP_L_336.patches(336, 336)
    tokens = views * patches
    parts = [_times(part, views) for part in vit_cost(CLIP_L_336, 336, 336)]
    convnext = ConvLlavaVisionConfig(**CONVNEXT_L_FOUR_STAGES)
    parts.append(total("ConvNeXt-L", convnext_cost(convnext, resolution, resolution)))
    parts.append(_patch_mining(convnext.hidden_sizes, resolution, tokens))
    parts.append(projector_cost(1024, language.hidden_size, tokens))
    encoder = "ViT-L/14 on 5 views, ConvNeXt-L"
    design = Design(encoder, "linear", "listed", cropping=True, extra_encoder=True)
    return System("MiniGemini-HD", resolution, tokens, tuple(parts), language, design)


def _patch_mining(widths: Sequence[int], resolution: int, tokens: int) -> Cost:
    """Return the cost of patch info mining.

    Each token of a view attends to the ConvNeXt features (all stages, at stride 4) of its patch. The global view uses
    the features at half height and width.
    """
    width, features = CLIP_L_336.width, sum(widths)
    grid = (resolution // 4) ** 2
    positions = grid + grid // 4
    parameters = linear_parameters(width, width) + 2 * linear_parameters(features, width) + 2 * width + 4 * features
    projections = tokens * width**2 + 2 * positions * features * width
    return Cost("patch info mining", parameters, projections + 2 * positions * width, positions * features)


def qwen_vl(resolution: int = 448) -> System:
    """Return Qwen-VL: ViT-bigG and a resampler of 256 learned queries (the paper's Table 5)."""
    language = _language(QWEN_7B)
    width, patches = language.hidden_size, QWEN_VIT.patches(resolution, resolution)
    parameters = QWEN_QUERIES * width + QWEN_VIT.width * width  # queries; keys and values projected to 4096
    parameters += 4 * linear_parameters(width, width) + width**2 + 6 * width
    macs = patches * QWEN_VIT.width * width + 2 * patches * width**2 + 3 * QWEN_QUERIES * width**2
    macs += attention_macs(QWEN_QUERIES, patches, width)
    resampler = Cost("resampler", parameters, macs, 4 * patches * width)
    parts = (*vit_cost(QWEN_VIT, resolution, resolution), resampler)
    return System(
        "Qwen-VL", resolution, QWEN_QUERIES, parts, language, Design("ViT-bigG, resampler", "quadratic", "fixed")
    )


def convllava(resolution: int) -> System:
    """Return ConvLLaVA with five stages (the green line of Figure 2)."""
    return _convnext("ConvLLaVA", CONVNEXT_L_FIVE_STAGES, resolution, "five-stage ConvNeXt-L")


def convnext_l(resolution: int) -> System:
    """Return the four-stage ConvNeXt-L with Vicuna-7B (the blue line of Figure 2)."""
    return _convnext("ConvNeXt-L", CONVNEXT_L_FOUR_STAGES, resolution, "four-stage ConvNeXt-L")


def _convnext(name: str, stages: dict[str, list[int]], resolution: int, encoder: str) -> System:
    config, language = ConvLlavaVisionConfig(**stages), vicuna_7b()
    tokens = (resolution // config.output_stride) ** 2
    projector = projector_cost(config.hidden_size, language.hidden_size, tokens)
    parts = (*convnext_cost(config, resolution, resolution), projector)
    return System(name, resolution, tokens, parts, language, Design(encoder, "linear", "any"))


TABLE_1: tuple[tuple[Callable[[int], System], int, int], ...] = (
    (llava_1_5, 336, 576),
    (otter_hd, 1024, 1225),
    (llava_next, 672, 2880),
    (mini_gemini_hd, 1536, 2880),
    (convllava, 1024, 256),
    (convllava, 1536, 576),
)
"""System, resolution and visual tokens of every row of the paper's Table 1."""

OTHER_SYSTEMS: tuple[tuple[Callable[[int], System], int, int], ...] = (
    (qwen_vl, 448, 256),
    (convllava, 768, 144),
    (convnext_l, 512, 256),
    (convnext_l, 768, 576),
)
"""Further systems of the paper's Tables 3 and 5."""


def table_1(*, others: bool = True) -> list[System]:
    """Return the systems of Table 1, then by default those of Tables 3 and 5 that it lacks."""
    listed = TABLE_1 + (OTHER_SYSTEMS if others else ())
    return [replace(build(resolution), paper_tokens=tokens) for build, resolution, tokens in listed]


FIGURE_2_RESOLUTIONS = (512, 768, 1024, 1536)
FIGURE_2_LINES: tuple[tuple[str, Callable[[int], System]], ...] = (
    ("ViT-L", vit_l),
    ("ConvNeXt-L", convnext_l),
    ("ConvNeXt-L, five stages", convllava),
)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper on cost, and the counted value."""

    text: str
    source: str
    paper: str
    counted: str


def claims() -> list[Claim]:
    """Return the paper's statements on cost with the counted values."""
    vits, fours, fives = ([build(side) for side in FIGURE_2_RESOLUTIONS] for _, build in FIGURE_2_LINES)
    by_four = [_ratio(vit, four) for vit, four in zip(vits, fours, strict=True)]
    by_five = [_ratio(four, five) for four, five in zip(fours, fives, strict=True)]
    sides = ", ".join(map(str, FIGURE_2_RESOLUTIONS))
    vit_parameters = total("", vit_cost(CLIP_L_336, 336, 336)).parameters
    tokens = ", ".join(f"{five.visual_tokens}" for five in fives[1:])
    return [
        Claim(f"ViT-L to ConvNeXt-L, total compute at {sides}", "3.1, Figure 2", "almost 8x", _listed(by_four)),
        Claim(f"four to five stages, total compute at {sides}", "3.1, Figure 2", "6x (at 1536)", _listed(by_five)),
        Claim("parameters of ViT-L", "Table 2", "304 M", _millions(vit_parameters)),
        Claim("parameters of ConvNeXt-L", "Table 2", "200 M", _millions(_tower_parameters(CONVNEXT_L_FOUR_STAGES))),
        Claim("parameters of five stages", "not stated", "", _millions(_tower_parameters(CONVNEXT_L_FIVE_STAGES))),
        Claim("visual tokens of five stages at 768, 1024, 1536", "Table 4", "144, 256, 576", tokens),
    ]


def _tower_parameters(stages: dict[str, list[int]]) -> int:
    return total("", convnext_cost(ConvLlavaVisionConfig(**stages), 768, 768)).parameters


def _ratio(first: System, second: System) -> float:
    return first.flops() / second.flops()


def _listed(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.1f}x" for ratio in ratios)


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M"
