"""Table 1's claim, measured: one pass over the image, and LLaVA-NeXT's tiles (AnyRes), in visual tokens and seconds.

AnyRes scales an image to the best of five grids of tiles, encodes each tile and a small view of all of it, and gives
all their tokens to the language model. Three candidates see the same number of pixels per side:

- ``one pass``: the five-stage ConvNeXt-L on the whole image (ConvLLaVA);
- ``tiles``: the same encoder on the tiles and the small view;
- ``ViT tiles``: CLIP's ViT-L/14 on views of 336 pixels (LLaVA-NeXT itself, 672 pixels per side).

The language model is Vicuna-7B's first two layers, whose time grows with the tokens as that of all 32 does. Weights are
random: times do not depend on them. ``--quick`` takes narrow encoders and layers. Accuracy is not measured here.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from common import Report, main, paired, parser, rounds_of
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaModel
from transformers.image_processing_utils import select_best_resolution

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel
from convllava.model.modeling_convllava import encode_images
from convllava.model.presets import CLIP_L_336, CONVNEXT_L_FIVE_STAGES, VICUNA_7B

GRIDS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
"""LLaVA-NeXT's grids: rows and columns of tiles."""

SHAPES = ((1.0, "square"), (2.0, "1:2"))
"""Width divided by height, at the same number of pixels."""

SMALL = {"depths": [1, 1, 2, 1, 1], "hidden_sizes": [16, 32, 64, 128, 256]}
SMALL_VIT = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_LANGUAGE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}


def tiles_of(image: Tensor, side: int) -> Tensor:
    """Cut an image into the views that LLaVA-NeXT encodes.

    Args:
        image: (3, H, W).
        side: Side of a view in pixels.

    Returns:
        (1 + tiles, 3, side, side): the small view of all of the image, then its tiles row by row.
    """
    height, width = image.shape[1:]
    rows, columns = (length // side for length in grid_of(height, width, side))
    scale = min(rows * side / height, columns * side / width)
    size = (round(height * scale), round(width * scale))
    scaled = F.interpolate(image[None], size, mode="bilinear", antialias=True)
    top, left = (rows * side - size[0]) // 2, (columns * side - size[1]) // 2
    padded = F.pad(scaled, (left, columns * side - size[1] - left, top, rows * side - size[0] - top))
    tiles = padded[0].unfold(1, side, side).unfold(2, side, side)  # (3, rows, columns, side, side)
    small = F.interpolate(image[None], (side, side), mode="bilinear", antialias=True)
    return torch.cat([small, tiles.permute(1, 2, 0, 3, 4).flatten(0, 1)])


def grid_of(height: int, width: int, side: int) -> tuple[int, int]:
    """Return height and width of the grid of tiles that wastes least of an image of height x width."""
    best = select_best_resolution((height, width), [(rows * side, columns * side) for rows, columns in GRIDS])
    return int(best[0]), int(best[1])


@dataclass
class Candidate:
    """An encoder and the views of an image that it encodes, (views, 3, H, W)."""

    encoder: nn.Module
    views: Tensor

    @torch.inference_mode()
    def tokens(self) -> Tensor:
        """Return the visual tokens (1, tokens, C) of all views."""
        sizes = torch.tensor([self.views.shape[-2:]] * len(self.views))
        return encode_images(self.encoder, self.views, sizes)[None]


def encoders(arguments: argparse.Namespace) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the five-stage ConvNeXt, the ViT and the language model's layers, with random weights."""
    quick = arguments.quick
    dtype = getattr(torch, arguments.dtype)
    language = {**VICUNA_7B, "num_hidden_layers": 2} | (SMALL_LANGUAGE if quick else {})
    del language["model_type"]
    vit = {name: value for name, value in CLIP_L_336.items() if name != "model_type"} | (SMALL_VIT if quick else {})
    parts = (
        ConvLlavaVisionModel(ConvLlavaVisionConfig(**(SMALL if quick else CONVNEXT_L_FIVE_STAGES))),
        CLIPVisionModel(CLIPVisionConfig(**vit)),
        LlamaModel(LlamaConfig(**language)),
    )
    return tuple(part.to(arguments.device, dtype).eval() for part in parts)


def candidates(
    arguments: argparse.Namespace, convnext: nn.Module, vit: nn.Module, height: int, width: int
) -> dict[str, Candidate]:
    """Return what each candidate sees of an image of height x width pixels."""
    where: dict[str, Any] = {"device": arguments.device, "dtype": getattr(torch, arguments.dtype)}
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    shrunk = F.interpolate(image[None], scale_factor=672 / arguments.side, mode="bilinear", antialias=True)[0]
    return {
        "one_pass": Candidate(convnext, image[None].to(**where)),
        "tiles": Candidate(convnext, tiles_of(image, arguments.side // 2).to(**where)),
        "vit_tiles": Candidate(vit, tiles_of(shrunk, 336).to(**where)),
    }


def run(report: Report) -> None:
    """Measure the candidates on images of several shapes."""
    arguments = report.arguments
    torch.manual_seed(0)
    convnext, vit, language = encoders(arguments)
    width = language.config.hidden_size

    @torch.inference_mode()
    def read(number: int) -> Tensor:
        """Run the language model's layers over a prompt of so many visual tokens."""
        embeds = torch.zeros(1, number, width, device=arguments.device, dtype=getattr(torch, arguments.dtype))
        return language(inputs_embeds=embeds).last_hidden_state

    for ratio, shape in SHAPES:
        height = round(arguments.side / ratio**0.5 / 64) * 64
        found = candidates(arguments, convnext, vit, height, round(height * ratio / 64) * 64)
        tokens = {name: candidate.tokens().shape[1] for name, candidate in found.items()}
        runs = {name: candidate.tokens for name, candidate in found.items()}
        runs |= {f"{name} LM": lambda number=tokens[name]: read(number) for name in found}
        timings = paired(runs, rounds_of(arguments), arguments.device)
        for name in found:
            report.add(
                shape=shape,
                candidate=name,
                views=len(found[name].views),
                tokens=tokens[name],
                tokens_times_one_pass=tokens[name] / tokens["one_pass"],
                encoder_ms=1000 * timings.median(name),
                encoder_times_one_pass=timings.ratio(name, "one_pass"),
                two_layers_ms=1000 * timings.median(f"{name} LM"),
                two_layers_times_one_pass=timings.ratio(f"{name} LM", "one_pass LM"),
            )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--side", type=int, default=1536, help="side of a square of as many pixels (default: 1536)")
    found.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    return found


if __name__ == "__main__":
    main("anyres", run, options())
