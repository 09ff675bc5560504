"""Measure how many characters a visual token carries: blocks of text in smaller and smaller type.

python benchmarks/characters_per_token.py --model nano
python benchmarks/characters_per_token.py --model runs/mine --sizes 40 28 20 16 --samples 100

Each sample is held-out text that fills an image of 256 x 256 to 320 x 384 pixels, of which a transcript is asked. The
table has the characters a visual token and the character error rate (CER) of each size of type; the last line names
the densest with a CER of at most 0.05, as papers on optical compression state it. Answers are kept in --out, and a run
that was stopped is resumed.
"""

import argparse
from pathlib import Path

import numpy as np

from convllava.eval import Scoring
from convllava.eval.benchmarks.synthetic import SYNTHETIC, SyntheticBenchmark
from convllava.eval.predictions import PredictionFile, prediction_of
from convllava.eval.protocol import RunOptions

SIZES = (48, 38, 30, 24, 20, 18, 16, 14)
"""Pixels per em."""

HIGHEST_ERROR_RATE = 0.05

TOKEN_SIDE = 64
"""Side of a visual token, in pixels."""


def benchmark_of(font_size: int, series: str = "choices") -> SyntheticBenchmark:
    """Return blocks of text in one size of type, in the ``choices`` or the ``heldout`` series."""
    return SYNTHETIC[f"{series}-transcripts"].variant(
        f"{series}-blocks-{font_size}",
        layouts=["dense"],
        sizes=[[256, 256], [256, 320], [320, 256], [320, 384]],
        font_size=[font_size, font_size],
        max_transcript=4000,
    )


def density(benchmark: SyntheticBenchmark, samples: int) -> float:
    """Return the true characters a visual token."""
    dataset = benchmark.dataset(samples)
    characters = sum(len(dataset.example(index).answer) for index in range(len(dataset)))
    pixels = sum(height * width for index in range(len(dataset)) for height, width in dataset.image_sizes(index))
    return characters * TOKEN_SIDE**2 / pixels


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, a directory or a hub id")
    parser.add_argument("--series", default="choices", choices=("choices", "heldout"), help="heldout: for the table")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="pixels per em")
    parser.add_argument("--samples", type=int, default=60, help="images of each size, at most 500")
    parser.add_argument("--batch-size", type=int, default=8, help="answers at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/characters_per_token"), help="folder for answers")
    arguments = parser.parse_args()
    if not 1 <= arguments.samples <= 500:
        parser.error(f"--samples is 1 to 500, got {arguments.samples}")

    from convllava.eval.runner import BenchmarkRun, ModelId
    from convllava.inference import Generator, load_pretrained

    generator = Generator(*load_pretrained(arguments.model), max_batch=arguments.batch_size)
    model = ModelId.of(generator, arguments.model)
    best = 0.0
    print(f"{'pixels an em':>12}{'characters a token':>20}{'CER':>8}", flush=True)
    for size in arguments.sizes:
        benchmark = benchmark_of(size, arguments.series)
        folder = arguments.out / benchmark.name
        run = BenchmarkRun(generator, benchmark, folder, RunOptions(), model)
        run.answer(folder, arguments.samples, Scoring(), None)
        lines = PredictionFile(folder, benchmark.name).read().values()
        edits, characters = np.sum([benchmark.counts(prediction_of(line)) for line in lines], axis=0)
        carried, rate = density(benchmark, arguments.samples), edits / characters
        best = max(best, carried) if rate <= HIGHEST_ERROR_RATE else best
        print(f"{size:>12}{carried:>20.1f}{rate:>8.3f}", flush=True)
    print(f"densest with a CER of at most {HIGHEST_ERROR_RATE}: {best:.1f} characters a visual token")


if __name__ == "__main__":
    main()
