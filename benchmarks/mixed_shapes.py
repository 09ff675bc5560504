"""200 images of natural shapes, encoded one by one and bucketed by shape.

Receipts, screenshots and photographs (synthetic pixels, shapes as they occur), each resized at its own aspect ratio
within a budget of visual tokens: such shapes are multiples of 64 and fall into few buckets. At their own size
("native") they rarely coincide, as the row without a budget shows.

Goal: at least 1.5x the images per second, with results equal up to rounding.
"""

import argparse
import math
from collections import Counter, defaultdict

import numpy as np
import torch
from common import Report, Run, main, paired, parser, rounds_of
from torch import Tensor

from convllava.inference import load_pretrained
from convllava.model import ConvLlavaForConditionalGeneration, resized_shape

PHOTOGRAPHS = [(3000, 4000), (4000, 3000), (2000, 3000), (1080, 1920), (1200, 1200)]
SCREENS = [(1080, 1920), (900, 1440), (2532, 1170), (1600, 2560)]


def natural_sizes(number: int) -> list[tuple[int, int]]:
    """Return typical sizes of images as (height, width), the same at every run."""
    rng = np.random.default_rng(0)
    found: list[tuple[int, int]] = []
    for _ in range(number):
        kind = rng.integers(3)
        if kind == 0:  # a receipt: 1.2 to 4 times as high as wide
            width = int(rng.integers(400, 1000))
            found.append((int(width * math.exp(rng.uniform(math.log(1.2), math.log(4)))), width))
        else:
            choices = SCREENS if kind == 1 else PHOTOGRAPHS
            found.append(choices[int(rng.integers(len(choices)))])
    return found


def shapes(sizes: list[tuple[int, int]], budget: int | None, largest: int) -> list[tuple[int, int]]:
    """Return the sizes after resizing; without a budget images are scaled to at most `largest` pixels per side."""
    options = {"image_aspect_ratio": "native", "resolution": None, "output_stride": 64, "max_visual_tokens": budget}
    if budget is not None:
        return [resized_shape(*size, **options) for size in sizes]
    return [(max(64, h * largest // max(h, w)), max(64, w * largest // max(h, w))) for h, w in sizes]


def one_by_one(model: ConvLlavaForConditionalGeneration, images: list[Tensor]) -> list[Tensor]:
    """Encode the images one by one."""
    return [model.get_image_features(image[None]).pooler_output[0] for image in images]


def bucketed(model: ConvLlavaForConditionalGeneration, images: list[Tensor], pixels: int) -> list[Tensor]:
    """Encode images of equal shape in batches of limited pixels."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[tuple(image.shape)].append(index)
    found: dict[int, Tensor] = {}
    for (_, height, width), members in groups.items():
        most = max(1, pixels // (height * width))
        for first in range(0, len(members), most):
            part = members[first : first + most]
            stacked = torch.stack([images[index] for index in part])
            found.update(zip(part, model.get_image_features(stacked).pooler_output, strict=True))
    return [found[index] for index in range(len(images))]


@torch.inference_mode()
def run(report: Report) -> None:
    """Measure each budget."""
    arguments = report.arguments
    model, _ = load_pretrained(arguments.model, device=arguments.device)
    sizes = natural_sizes(12 if arguments.quick else 200)
    for budget in [4, None] if arguments.quick else [16, 36, 64, None]:
        shown = shapes(sizes, budget, largest=192 if arguments.quick else 512)
        images = [torch.randn(3, *shape, device=arguments.device) for shape in shown]
        runs: dict[str, Run] = {
            "one by one": lambda images=images: one_by_one(model, images),
            "bucketed": lambda images=images: bucketed(model, images, arguments.pixels),
        }
        timings = paired(runs, rounds_of(arguments), arguments.device)
        alone, together = one_by_one(model, images), bucketed(model, images, arguments.pixels)
        report.add(
            budget=budget or "own size",
            images=len(images),
            shapes=len(Counter(shown)),
            alone_per_second=len(images) / timings.median("one by one"),
            bucketed_per_second=len(images) / timings.median("bucketed"),
            times=timings.ratio("one by one", "bucketed"),
            relative_difference=max(float((a - b).norm() / a.norm()) for a, b in zip(alone, together, strict=True)),
        )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--model", default="nano", help="nano, a directory or a hub id")
    found.add_argument("--pixels", type=int, default=1 << 20, help="maximum pixels of a batch")
    return found


if __name__ == "__main__":
    main("mixed_shapes", run, options())
