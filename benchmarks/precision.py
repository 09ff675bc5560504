"""Effect of the faster encoder backends on nano: its features, and its scores on held-out synthetic benchmarks.

Features are those of synthetic documents. Their error is relative to the eager float32 encoder, in the Euclidean norm.
The language model stays in float32, so that differences of scores come from the encoder.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from common import Report, main, parser
from torch import Tensor

from convllava.eval.benchmarks.synthetic import SYNTHETIC
from convllava.eval.runner import run_benchmark
from convllava.inference import Generator, load_pretrained, open_image
from convllava.model import ConvLlavaForConditionalGeneration

PRECISIONS = ("eager", "float32", "bfloat16", "int8")
IMAGES = 8


def documents(processor: object, number: int) -> list[Tensor]:
    """Return pixels (1, 3, H, W) of held-out documents."""
    samples = SYNTHETIC["synthetic-documents"].dataset(number)
    opened = [open_image(item) for sample in samples for item in sample.images]
    return [processor.image_processor(item, return_tensors="pt")["pixel_values"] for item in opened]  # type: ignore[attr-defined]


def switch(model: ConvLlavaForConditionalGeneration, precision: str) -> None:
    """Set the backend of the encoder."""
    model.model.vision_tower.set_backend(precision if precision == "eager" else f"cpu-{precision}")


@torch.inference_mode()
def features(model: ConvLlavaForConditionalGeneration, images: list[Tensor]) -> list[Tensor]:
    """Encode images one by one."""
    return [model.model.vision_tower(pixels).last_hidden_state for pixels in images]


def run(report: Report) -> None:
    """Encode and answer with every backend."""
    arguments = report.arguments
    model, processor = load_pretrained(arguments.model, device="cpu")
    generator_options = {"max_batch": 8}
    images = documents(processor, 2 if arguments.quick else IMAGES)
    exact = features(model, images)
    limit = 8 if arguments.quick else arguments.limit
    for precision in PRECISIONS:
        switch(model, precision)
        found = features(model, images)
        errors = [float((ours - eager).norm() / eager.norm()) for ours, eager in zip(found, exact, strict=True)]
        scores = {}
        with tempfile.TemporaryDirectory() as folder:
            for name in SYNTHETIC:
                generator = Generator(model, processor, **generator_options)
                scores[name] = run_benchmark(generator, name, limit=limit, out=Path(folder)).value
        report.add(encoder=precision, feature_error=sum(errors) / len(errors), samples=limit, **scores)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--model", default="nano", help="nano, a directory or a hub id")
    found.add_argument("--limit", type=int, default=200, help="samples of each benchmark (default: 200)")
    return found


if __name__ == "__main__":
    main("precision", run, options())
