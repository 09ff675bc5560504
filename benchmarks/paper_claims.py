"""The paper's claims about speed and size, measured: ConvNeXt-L against ViT-L, five stages against four.

- parameters: ConvNeXt-L 200 M, ViT-L 304 M (Table 2), five stages (not stated there) 669 M;
- ConvNeXt-L with four stages at 768 against ViT-L/14 at 336 ("on par");
- five stages against four at 768 with the language model behind them (144 and 576 visual tokens);
- five stages at 1536 against LLaVA-1.5, ViT-L/14 at 336 (576 visual tokens each).

Weights are random, since time does not depend on them. A few layers of Vicuna-7B's size are timed and multiplied, since
all are alike; --layers 32 times all of them. Every encoder runs in eager mode, ConvNeXt also with its backend for
inference.
"""

import argparse
from functools import partial
from typing import Any

import torch
from common import Report, Run, main, paired, parser, rounds_of
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaModel

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel
from convllava.model.acceleration.cpu import fastest_precision
from convllava.model.presets import CONVNEXT_L_FIVE_STAGES, CONVNEXT_L_FOUR_STAGES, VICUNA_7B

VIT_L: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 336,
}
TEXT_TOKENS = 64
LAYERS = VICUNA_7B["num_hidden_layers"]


class Sizes:
    """Sizes that are compared: the paper's, or small ones that run in seconds."""

    def __init__(self, quick: bool) -> None:
        shrink = 8 if quick else 1
        self.four = _narrowed(CONVNEXT_L_FOUR_STAGES, shrink)
        self.five = _narrowed(CONVNEXT_L_FIVE_STAGES, shrink)
        self.vit = VIT_L | {"hidden_size": 1024 // shrink, "intermediate_size": 4096 // shrink}
        self.language = VICUNA_7B | {"hidden_size": 4096 // shrink, "intermediate_size": 11008 // shrink}
        self.sides = (128, 256) if quick else (768, 1536)
        if quick:
            self.vit |= {"num_hidden_layers": 2, "image_size": 56, "num_attention_heads": 4}
            self.four["depths"], self.five["depths"] = [1] * 4, [1] * 5


def _narrowed(stages: dict[str, Any], shrink: int) -> dict[str, Any]:
    return {"depths": list(stages["depths"]), "hidden_sizes": [width // shrink for width in stages["hidden_sizes"]]}


def parameters(report: Report, sizes: Sizes) -> None:
    """Count the encoders' parameters."""
    with torch.device("meta"):
        models = {
            "ConvNeXt-L, four stages": ConvLlavaVisionModel(ConvLlavaVisionConfig(**sizes.four)),
            "ViT-L/14": CLIPVisionModel(CLIPVisionConfig(**sizes.vit)),
            "ConvNeXt-L, five stages": ConvLlavaVisionModel(ConvLlavaVisionConfig(**sizes.five)),
        }
    for name, model in models.items():
        report.add(encoder=name, million_parameters=sum(weight.numel() for weight in model.parameters()) / 1e6)


def convnext(stages: dict[str, Any], dtype: torch.dtype, device: str) -> ConvLlavaVisionModel:
    """Return a random encoder."""
    with torch.device(device):
        return ConvLlavaVisionModel(ConvLlavaVisionConfig(**stages)).to(dtype).eval()


def convnext_runs(name: str, tower: ConvLlavaVisionModel, side: int) -> dict[str, Run]:
    """Return the runs of an encoder, eager and with its backend for inference."""
    pixels = torch.randn(1, 3, side, side, dtype=tower.dtype, device=tower.device)
    tower.set_backend("auto", size=(side, side))
    eager = partial(tower, pixels, output_hidden_states=True)  # which no backend serves
    return {f"{name} {side}, eager": eager, f"{name} {side}": partial(tower, pixels)}


def vit_runs(config: dict[str, Any], dtype: torch.dtype, device: str) -> dict[str, Run]:
    """Return the run of ViT-L as LLaVA-1.5 has it."""
    with torch.device(device):
        model = CLIPVisionModel(CLIPVisionConfig(**config)).to(dtype).eval()
    side = config["image_size"]
    pixels = torch.randn(1, 3, side, side, dtype=dtype, device=device)
    return {f"ViT-L/14 {side}": partial(model, pixels)}


def prefill_runs(
    config: dict[str, Any], layers: int, visual_tokens: list[int], dtype: torch.dtype, device: str
) -> dict[str, Run]:
    """Return the runs of a few layers over the prompts."""
    shortened = LlamaConfig(**(config | {"num_hidden_layers": layers}))
    with torch.device(device):
        model: nn.Module = LlamaModel(shortened).to(dtype).eval()
    found: dict[str, Run] = {}
    for visual in visual_tokens:
        prompt = torch.randn(1, visual + TEXT_TOKENS, config["hidden_size"], dtype=dtype, device=device)
        found[f"prefill {visual}"] = partial(model, inputs_embeds=prompt, use_cache=False)
    return found


@torch.inference_mode()
def run(report: Report) -> None:
    """Count, time and compare."""
    arguments = report.arguments
    sizes, device = Sizes(arguments.quick), arguments.device
    parameters(report, sizes)
    automatic = "bfloat16" if device != "cpu" else fastest_precision()
    dtype = getattr(torch, arguments.dtype or automatic)
    small, large = sizes.sides
    few, many = (small // 64) ** 2, (small // 32) ** 2
    reference = (large // 64) ** 2
    rounds = rounds_of(arguments)
    seconds: dict[str, float] = {}
    groups = [
        lambda: (
            convnext_runs("four stages", convnext(sizes.four, dtype, device), small)
            | vit_runs(sizes.vit, dtype, device)
        ),
        lambda: convnext_runs("five stages", convnext(sizes.five, dtype, device), small),
        lambda: convnext_runs("five stages", convnext(sizes.five, dtype, device), large),
        lambda: prefill_runs(sizes.language, arguments.layers, sorted({few, many, reference}), dtype, device),
    ]
    for group in groups:  # one after the other: together their weights may not fit
        runs = group()
        timings = paired(runs, rounds, device, warm_ups=1 if device == "cpu" else 4)
        for name in runs:
            times = LAYERS / arguments.layers if name.startswith("prefill") else 1
            seconds[name] = times * timings.median(name)
            report.add(what=name, ms=1000 * seconds[name], dtype=str(dtype).removeprefix("torch."))
        del runs
    claims(report, seconds, sizes, few, many, reference)


def claims(report: Report, seconds: dict[str, float], sizes: Sizes, few: int, many: int, reference: int) -> None:
    """Add the ratios of the paper's statements."""
    small, large = sizes.sides
    vit = seconds[f"ViT-L/14 {sizes.vit['image_size']}"]
    for suffix in ("", ", eager"):
        four, five = seconds[f"four stages {small}{suffix}"], seconds[f"five stages {small}{suffix}"]
        wide = seconds[f"five stages {large}{suffix}"]
        encoder = "eager" if suffix else "backend"
        report.add(
            claim=f"four stages at {small} / ViT-L at {sizes.vit['image_size']}", encoder=encoder, ratio=four / vit
        )
        first, second = four + seconds[f"prefill {many}"], five + seconds[f"prefill {few}"]
        report.add(claim=f"four / five stages at {small}, to the first token", encoder=encoder, ratio=first / second)
        behind = seconds[f"prefill {reference}"]
        ratio = (wide + behind) / (vit + behind)
        report.add(claim=f"five stages at {large} / LLaVA-1.5, to the first token", encoder=encoder, ratio=ratio)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--dtype", choices=["float32", "bfloat16"], help="precision (default: by the machine)")
    found.add_argument("--layers", type=int, default=1, help="timed layers of the language model (default: 1)")
    return found


if __name__ == "__main__":
    main("paper_claims", run, options())
