"""Preprocessing of a JPEG: the fast and the exact mode, compared with transformers' CLIPImageProcessor.

A JPEG of 3000 x 4000 pixels, from the file to a tensor: on a square of 1536 and, for the two modes of this package, at
its own aspect ratio. Differences are those of the fast mode from the exact one, which equals CLIP's, in levels of 8
bits.

Goal: the fast mode at least 2x CLIPImageProcessor.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import Report, Run, main, paired, parser, rounds_of
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from convllava.analysis.measure import jpeg
from convllava.model import ConvLlavaImageProcessor
from convllava.model.image_processing_convllava import CLIP_STD, pad_to_square


def clip(side: int) -> Any:
    """Return CLIP's image processor for squares of this side."""
    size = {"height": side, "width": side}
    return CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False)


def by_clip(processor: Any, path: Path) -> Tensor:
    """Open, pad and process an image as LLaVA's own code does."""
    with Image.open(path, formats=("JPEG", "PNG")) as image:
        square = pad_to_square(image.convert("RGB"), (122, 116, 104))
    return processor(square, return_tensors="pt")["pixel_values"]


def own_ways(**options: Any) -> dict[str, ConvLlavaImageProcessor]:
    """Return the image processor in both modes."""
    return {way: ConvLlavaImageProcessor(preprocessing=way, **options) for way in ("exact", "fast")}


def levels_apart(exact: Tensor, fast: Tensor) -> dict[str, float]:
    """Return mean and 99.9th percentile of the difference in levels of 8 bits."""
    levels = (exact - fast).abs() * torch.tensor(CLIP_STD)[None, :, None, None] * 255
    some = levels.flatten()[:: max(1, levels.numel() // 1_000_000)]
    return {"mean_levels": float(levels.mean()), "levels_999": float(some.quantile(0.999))}


def squares(report: Report, path: Path, side: int) -> None:
    """Compare the three processors on a padded square."""
    reference = clip(side)
    ways = own_ways(image_aspect_ratio="pad", resolution=side)
    runs: dict[str, Run] = {"clip": lambda: by_clip(reference, path)}
    runs |= {way: lambda own=own: own(str(path), return_tensors="pt") for way, own in ways.items()}
    timings = paired(runs, rounds_of(report.arguments))
    exact, fast = (own(str(path), return_tensors="pt")["pixel_values"] for own in ways.values())
    report.add(
        shown=f"pad {side}",
        clip_ms=1000 * timings.median("clip"),
        exact_ms=1000 * timings.median("exact"),
        fast_ms=1000 * timings.median("fast"),
        exact_times_clip=timings.ratio("clip", "exact"),
        fast_times_clip=timings.ratio("clip", "fast"),
        exact_is_clip=bool(torch.equal(exact, by_clip(reference, path))),
        **levels_apart(exact, fast),
    )


def natives(report: Report, path: Path, short_side: int) -> None:
    """Compare the two modes at the image's own aspect ratio."""
    ways = own_ways(image_aspect_ratio="native", resolution=short_side)
    timings = paired(
        {way: lambda own=own: own(str(path), return_tensors="pt") for way, own in ways.items()},
        rounds_of(report.arguments),
    )
    exact, fast = (own(str(path), return_tensors="pt")["pixel_values"] for own in ways.values())
    report.add(
        shown=f"native {short_side}",
        exact_ms=1000 * timings.median("exact"),
        fast_ms=1000 * timings.median("fast"),
        fast_times_exact=timings.ratio("exact", "fast"),
        **levels_apart(exact, fast),
    )


def run(report: Report) -> None:
    """Create a JPEG and measure."""
    quick = report.arguments.quick
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph.jpg"
        path.write_bytes(jpeg(750, 1000) if quick else jpeg(3000, 4000))
        for side in [384] if quick else [768, 1536]:
            squares(report, path, side)
            natives(report, path, side)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return parser(__doc__.splitlines()[0])


if __name__ == "__main__":
    main("preprocessing", run, options())
