"""Time the generator of synthetic samples: milliseconds of processor time a sample, by kind.

python benchmarks/generator.py
python benchmarks/generator.py documents pages --count 1000

The first ``--warm-up`` samples are not timed: they fill the caches of glyphs and textures, which a training run fills
once in each worker.
"""

import argparse
import time

from convllava.synthetic import KINDS, SyntheticDataset

CORES = 16
"""Cores of the machine that the goal of 1000 samples a second is stated for."""


def main() -> None:
    """Print a line for each kind."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kinds", nargs="*", default=list(KINDS), help="kinds of samples (default: all)")
    options.add_argument("--count", type=int, default=200, help="timed samples (default: 200)")
    options.add_argument("--warm-up", type=int, default=1000, help="samples before (default: 1000)")
    arguments = options.parse_args()
    print(f"{'kind':<12}{'ms':>8}{'first ms':>10}{'visual tokens':>15}{'characters':>12}{f'a second on {CORES}':>18}")
    for kind in arguments.kinds:
        dataset = SyntheticDataset(kind, count=arguments.warm_up + arguments.count, seed=1)
        first = seconds(dataset, range(arguments.warm_up)) / max(1, arguments.warm_up)
        timed = range(arguments.warm_up, len(dataset))
        each = seconds(dataset, timed) / arguments.count
        sizes = [dataset.image_sizes(index)[0] for index in timed]
        tokens = sum(height * width for height, width in sizes) / 64**2 / arguments.count
        characters = sum(supervised(dataset, index) for index in timed[:50]) / 50
        rate = f"{CORES / each:.0f}"
        print(f"{kind:<12}{1e3 * each:>8.2f}{1e3 * first:>10.2f}{tokens:>15.1f}{characters:>12.0f}{rate:>18}")


def seconds(dataset: SyntheticDataset, indices: range) -> float:
    """Return the processor time of drawing some samples."""
    start = time.process_time()
    for index in indices:
        dataset.example(index)
    return time.process_time() - start


def supervised(dataset: SyntheticDataset, index: int) -> int:
    """Return the characters of all answers of a sample."""
    example = dataset.example(index)
    return len(example.answer) + sum(len(answer) for _, answer in example.more)


if __name__ == "__main__":
    main()
