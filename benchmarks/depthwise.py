"""Depthwise 7 x 7 convolution in training: forward and backward, against PyTorch's own.

Shapes are those of the stages of ConvNeXt-L at 384 and of nano at 512. The share of a complete block (convolution,
norm, products, scale, residual) bounds the gain in a training step.
"""

import argparse
from functools import partial

import torch
from common import Report, Run, main, paired, parser, rounds_of
from torch import Tensor, nn

from convllava.model import ConvLlavaVisionConfig
from convllava.model.depthwise import depthwise_convolve, is_native
from convllava.model.vision_convllava import ConvLlavaVisionLayer

QUICK = [(32, 12)]
SHAPES = [(32, 128), (64, 64), (128, 32), (256, 16), (512, 8), (192, 96), (384, 48), (768, 24), (1536, 12), (3072, 6)]
"""(channels, side of the feature map)."""


def step(function: "Run") -> None:
    """Run forward and backward."""
    output: Tensor = function()  # type: ignore[assignment]
    output.backward(torch.ones_like(output))


def measure(report: Report, channels: int, side: int, dtype: torch.dtype, with_pytorch: bool) -> None:
    """Time one shape in one dtype."""
    arguments = report.arguments
    config = ConvLlavaVisionConfig(depths=[1], hidden_sizes=[channels])
    block = ConvLlavaVisionLayer(config, channels).to(device=arguments.device, dtype=dtype)
    convolution: nn.Conv2d = block.dwconv
    maps = torch.randn(arguments.batch, side, side, channels, device=arguments.device).to(dtype).requires_grad_()
    features = maps.permute(0, 3, 1, 2)
    runs: dict[str, Run] = {
        "ours": partial(step, partial(depthwise_convolve, convolution, features)),
        "block": partial(step, partial(block, maps)),
    }
    if with_pytorch:
        runs["pytorch"] = partial(step, partial(convolution, features))
    timings = paired(runs, rounds_of(arguments), arguments.device)
    report.add(
        channels=channels,
        side=side,
        batch=arguments.batch,
        dtype=str(dtype).removeprefix("torch."),
        ours_ms=1000 * timings.median("ours"),
        pytorch_ms=1000 * timings.median("pytorch") if with_pytorch else float("nan"),
        times=timings.ratio("pytorch", "ours") if with_pytorch else float("nan"),
        share_of_block=timings.ratio("ours", "block"),
    )


def run(report: Report) -> None:
    """Measure every shape in every dtype."""
    arguments = report.arguments
    for dtype in (torch.float32, torch.bfloat16):
        native = arguments.device != "cpu" or is_native(dtype)
        for channels, side in QUICK if arguments.quick else SHAPES:
            # without instructions for it PyTorch's own takes seconds on the larger maps
            measure(report, channels, side, dtype, with_pytorch=native or side <= 24)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--batch", type=int, default=1, help="maps at a time (default: 1)")
    return found


if __name__ == "__main__":
    main("depthwise", run, options())
