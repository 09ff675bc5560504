"""Measure the paper's findings on a small model.

python benchmarks/findings.py native        the native aspect ratio against a padded square, on elongated documents
python benchmarks/findings.py resolution    higher resolutions than in training (Table 7), on documents and scenes
python benchmarks/findings.py budget        token budgets on images of 1536 x 1536 pixels
python benchmarks/findings.py               all of them

The images are held-out synthetic ones (words, type faces and seeds that no training data use). Predictions, tables and
plots are written to --out, and a run that was stopped is resumed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convllava.eval import Scoring
from convllava.eval.benchmarks.synthetic import SYNTHETIC, SyntheticBenchmark
from convllava.eval.outcome import bootstrap_interval, ratio
from convllava.eval.predictions import PredictionFile, prediction_of
from convllava.eval.protocol import RunOptions
from convllava.eval.sweep import Point, as_markdown, point_of, setting_name, write_sweep
from convllava.image_options import ImageOptions
from convllava.support import write_text

Size = list[int]
"""[height, width] in pixels."""


@dataclass(frozen=True)
class Question:
    """Held-out images under several settings.

    Attributes:
        like: The benchmark whose answers are counted in the same way.
        changes: Options of the generator that differ from that benchmark's.
        settings: Image options; the others are compared with the first.
    """

    name: str
    like: str
    changes: dict[str, Any]
    settings: tuple[ImageOptions, ...]

    def benchmark(self) -> SyntheticBenchmark:
        """Return the benchmark that asks this question."""
        return SYNTHETIC[self.like].variant(self.name, **self.changes)


def native(resolution: int | None = None, budget: int | None = None) -> ImageOptions:
    """Return options for the native aspect ratio, at the original size or with the short side at ``resolution``."""
    return ImageOptions("native", resolution, budget)


def pad(side: int) -> ImageOptions:
    """Return options for a padded square."""
    return ImageOptions("pad", side)


BUDGETS = (4, 9, 16, 36, 144, 576)
"""At 64 pixels a token: squares of 128, 192, 256, 384, 768 and 1536 pixels."""

FINDINGS: dict[str, tuple[Question, ...]] = {
    "native": (
        # One line 1:3 is 3 tokens; the square with as many (4) shrinks it, that with letters as large needs 9.
        Question("elongated-lines", "synthetic-lines", {"sizes": [[64, 192]]}, (native(), pad(128), pad(192))),
        # Pages 3:1 and 1:3 are 48 tokens; the square of 448 pixels has 49, that of 768 pixels 144.
        Question(
            "elongated-pages",
            "synthetic-documents",
            {"sizes": [[768, 256], [256, 768]]},
            (native(), pad(448), pad(768)),
        ),
    ),
    "resolution": (
        # Images twice as large as any trained with; the first setting shows them at the size of those.
        Question(
            "blocks-of-four-lines",
            "synthetic-lines",
            {"sizes": [[256, 384]], "rows": 4},
            (native(128), native(192), native(256), native(320)),
        ),
        Question(
            "pages",
            "synthetic-documents",
            {"sizes": [[512, 512], [512, 640], [640, 512]]},
            (native(256), native(320), native(384), native(512)),
        ),
        Question(
            "scenes",
            "synthetic-scenes",
            {"sizes": [[256, 256], [256, 384], [384, 256]]},
            (native(128), native(192), native(256)),
        ),
    ),
    "budget": (
        Question(
            "scenes-of-1536",
            "synthetic-scenes",
            {"sizes": [[1536, 1536]]},
            tuple(native(None, tokens) for tokens in BUDGETS),
        ),
        Question(
            "pages-of-1536",
            "synthetic-documents",
            {"sizes": [[1536, 1536]], "font_size": [168, 252]},
            tuple(native(None, tokens) for tokens in BUDGETS),
        ),
    ),
}


@dataclass(frozen=True)
class Measured:
    """A question answered under one setting.

    Attributes:
        counts: Numerator and denominator of the figure for each sample, of shape (samples, 2).
    """

    point: Point
    counts: np.ndarray


def measure(generator: Any, model: Any, question: Question, options: ImageOptions, out: Path, limit: int) -> Measured:
    """Measure one setting; samples with a prediction are not answered again."""
    from convllava.eval.runner import BenchmarkRun

    benchmark = question.benchmark()
    folder = out / question.name / setting_name(options)
    run = BenchmarkRun(generator, benchmark, folder, RunOptions(image=options), model)
    run.answer(folder, limit, Scoring(), progress(f"{question.name}, {setting_name(options)}"))
    point = point_of(run.score(Scoring()), folder, options)
    return Measured(point, counts_of(benchmark, folder, limit))


def counts_of(benchmark: SyntheticBenchmark, folder: Path, limit: int) -> np.ndarray:
    """Return the counts of each prediction, of shape (samples, 2)."""
    lines = PredictionFile(folder, benchmark.name).read()
    rows = [lines[f"{benchmark.name}/{index}"] for index in range(limit)]
    return np.array([benchmark.counts(prediction_of(line)) for line in rows], dtype=float).reshape(-1, 2)


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Return second minus first on the same samples, with the ends of its 95 % interval."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        return ratio(sums[..., 2:]) - ratio(sums[..., :2])

    both = np.hstack([first, second])
    low, high = bootstrap_interval(both, statistic)
    return float(statistic(both.sum(axis=0))), low, high


def compare(measured: Sequence[Measured]) -> str:
    """Say how each setting differs from the first."""
    first, *others = measured
    lines = []
    for other in others:
        value, low, high = difference(first.counts, other.counts)
        better = (value > 0) == first.point.higher_is_better
        verdict = "no clear difference" if low <= 0 <= high else "better" if better else "worse"
        lines.append(
            f"- {first.point.benchmark}: `{other.point.setting}` ({other.point.visual_tokens:.0f} tokens) against "
            f"`{first.point.setting}` ({first.point.visual_tokens:.0f}): {first.point.metric} {value:+.3f} "
            f"(95 %: {low:+.3f} to {high:+.3f}; {verdict})\n"
        )
    return "".join(lines)


def report(name: str, arguments: argparse.Namespace, generator: Any, model: Any) -> str:
    """Measure one finding and return it as Markdown."""
    out = arguments.out / name
    points: list[Point] = []
    comparison = ""
    for question in FINDINGS[name]:
        found = [measure(generator, model, question, options, out, arguments.samples) for options in question.settings]
        points += [result.point for result in found]
        comparison += compare(found)
    write_sweep(points, out)
    command = f"python benchmarks/findings.py {name} --model {arguments.model} --samples {arguments.samples}"
    text = f"## {name}\n\n`{command}`\n\n{as_markdown(points)}\n{comparison}"
    write_text(out / "finding.md", text)
    return text


def progress(what: str) -> Callable[[int, int, float | None], None] | None:
    """Return a function that prints the progress of a run, or None if standard error is not a terminal."""
    if not sys.stderr.isatty():
        return None

    def advance(done: int, total: int, mean: float | None) -> None:
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return advance


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("findings", nargs="*", metavar="FINDING", help=f"{', '.join(FINDINGS)}; all by default")
    parser.add_argument("--model", default="nano", help="nano, a directory or a hub id")
    parser.add_argument("--samples", type=int, default=100, help="images of each kind, at most 500")
    parser.add_argument("--batch-size", type=int, default=8, help="answers at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/findings"), help="folder for answers, tables and plots")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.findings if name not in FINDINGS]
    if unknown or not 1 <= arguments.samples <= 500:
        parser.error(f"no finding {unknown[0]!r}" if unknown else f"--samples is 1 to 500, got {arguments.samples}")

    from convllava.eval.runner import ModelId
    from convllava.inference import Generator, load_pretrained

    generator = Generator(*load_pretrained(arguments.model), max_batch=arguments.batch_size)
    model = ModelId.of(generator, arguments.model)
    for name in arguments.findings or FINDINGS:
        print(report(name, arguments, generator, model), flush=True)


if __name__ == "__main__":
    main()
