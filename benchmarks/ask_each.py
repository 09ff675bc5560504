"""The same question about each of many mixed images: `ask_each`, and `ask` in a Python loop.

The images are synthetic lines, documents and scenes of several shapes, and photograph-like noise of up to 1200 x 900
pixels, as PNG and JPEG files. Both candidates open the files and answer with nano; the answers must be equal.

Goal: `ask_each` at least twice as fast on 200 images.
"""

import argparse
import tempfile
from pathlib import Path

from common import Report, main, paired, parser, rounds_of
from PIL import Image

from convllava import ask
from convllava.inference import EachOptions, ImageOf, ask_each, load_pretrained
from convllava.synthetic import SyntheticDataset

QUESTION = "What does it say?"
SIZES = {"line": [[64, 128], [64, 192]], "document": [[256, 256], [256, 320]], "scene": [[128, 192], [192, 128]]}


def write_images(folder: Path, count: int) -> list[Path]:
    """Write mixed images and return their paths."""
    kinds = {kind: SyntheticDataset(kind, count=count, split="heldout", sizes=sizes) for kind, sizes in SIZES.items()}
    paths = []
    for number in range(count):
        kind = [*kinds, "noise"][number % 4]
        if kind == "noise":
            image = Image.effect_noise((400 + 100 * (number % 9), 300 + 100 * (number % 7)), 60).convert("RGB")
            paths.append(folder / f"{number:05}.jpg")
        else:
            image = kinds[kind].example(number).image
            paths.append(folder / f"{number:05}.png")
        image.save(paths[-1])
    return paths


def run(report: Report) -> None:
    """Time both candidates on the same files."""
    arguments = report.arguments
    count = arguments.count or (24 if arguments.quick else 200)
    model, processor = load_pretrained("nano", device=arguments.device)
    options = EachOptions(max_batch=arguments.batch_size, request={"max_new_tokens": arguments.tokens})
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), count)
        answers: dict[str, dict[Path, str]] = {"loop": {}, "each": {}}

        def loop() -> None:
            for path in paths:
                answer = ask(model, processor, path, QUESTION, max_new_tokens=arguments.tokens)
                answers["loop"][path] = answer.text

        def each() -> None:
            for found in ask_each(model, processor, map(ImageOf, paths), [QUESTION], options):
                answers["each"][found.image.source] = found.answer.text if found.answer else str(found.error)

        timings = paired({"loop": loop, "each": each}, rounds_of(arguments), arguments.device)
    report.add(
        images=count,
        tokens=arguments.tokens,
        batch_size=arguments.batch_size,
        loop_images_a_second=count / timings.median("loop"),
        each_images_a_second=count / timings.median("each"),
        times=timings.ratio("loop", "each"),
        equal_answers=sum(answers["loop"][path] == answers["each"][path] for path in paths) / count,
    )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--count", type=int, help="number of images (default: 200, with --quick 24)")
    found.add_argument("--batch-size", type=int, default=8, help="of ask_each (default: 8)")
    found.add_argument("--tokens", type=int, default=32, help="maximum of each answer (default: 32)")
    return found


if __name__ == "__main__":
    main("ask_each", run, options())
