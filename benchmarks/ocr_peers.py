"""Measure Tesseract and RapidOCR on real receipts: what a user would take instead of a small model.

apt-get install tesseract-ocr; pip install rapidocr onnxruntime    # either may be missing
python benchmarks/ocr_peers.py FOLDER
python benchmarks/ocr_peers.py FOLDER --receipts 20 --engines tesseract --out peers.json

FOLDER has ``receipts.jsonl``, a receipt a line: ``image`` (a path in FOLDER), ``fields`` with ``total``, and ``lines``
with ``text`` and ``box`` [x0, y0, x1, y1] in pixels. The last receipts of the file are measured, and five of the lines
of each. Figures:

- lines: character error rate of cropped lines, without case and with each run of white space as one blank, as the
  benchmark ``receipts-lines`` of examples/receipts counts;
- total: ANLS of the total. These programs answer no questions, so a rule takes the last amount of the last line that
  has the word TOTAL (but not SUB), which is what a user would write.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from convllava.eval.metrics import anls, edit_distance

LINES_EACH = 5
MARGIN = 3
"""Pixels around the box of a cropped line."""

AMOUNT = re.compile(r"\d[\d,]*[.,]\d{2}\b")


class Engine(Protocol):
    """A program that reads images."""

    def line(self, image: Image.Image) -> str:
        """Return the text of one cropped line."""
        ...

    def page(self, image: Image.Image) -> list[str]:
        """Return the lines of a complete image."""
        ...


class Tesseract:
    """Tesseract 5, as a process for each image."""

    def line(self, image: Image.Image) -> str:
        return " ".join(self._read(image, "7"))

    def page(self, image: Image.Image) -> list[str]:
        return self._read(image, "4")

    def _read(self, image: Image.Image, segmentation: str) -> list[str]:
        buffer = BytesIO()
        image.save(buffer, "PNG")
        command = ["tesseract", "stdin", "stdout", "--psm", segmentation]
        done = subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=True)
        return [line for line in done.stdout.decode().splitlines() if line.strip()]


class RapidOcr:
    """RapidOCR with the models of its wheel, on onnxruntime."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._run = RapidOCR()

    def line(self, image: Image.Image) -> str:
        result = self._run(np.asarray(image.convert("RGB"))[:, :, ::-1], use_det=False, use_cls=False)
        return " ".join(result.txts or ())

    def page(self, image: Image.Image) -> list[str]:
        result = self._run(np.asarray(image.convert("RGB"))[:, :, ::-1], use_det=True, use_cls=True)
        if result.txts is None:
            return []
        found = [
            (float(np.mean(box[:, 1])), float(box[0][0]), text)
            for box, text in zip(result.boxes, result.txts, strict=True)
        ]
        return _rows(found, 0.6 * float(np.median([np.ptp(box[:, 1]) for box in result.boxes])))


ENGINES: dict[str, Callable[[], Engine]] = {"tesseract": Tesseract, "rapidocr": RapidOcr}


def _rows(pieces: Sequence[tuple[float, float, str]], height: float) -> list[str]:
    """Join pieces (y, x, text) whose middles are at one height to lines."""
    rows: list[list[tuple[float, float, str]]] = []
    for piece in sorted(pieces):
        if rows and piece[0] - rows[-1][0][0] < height:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [" ".join(text for _, _, text in sorted(row, key=lambda piece: piece[1])) for row in rows]


def total_of(lines: Sequence[str]) -> str:
    """Return the last amount of the last line about the total that has one; "" if none has."""
    for line in reversed(lines):
        amounts = AMOUNT.findall(line)
        if amounts and "TOTAL" in line.upper() and "SUB" not in line.upper():
            return str(amounts[-1])
    return ""


def measure(engine: Engine, receipts: Sequence[dict[str, Any]], folder: Path) -> dict[str, float]:
    """Return the figures of an engine and the seconds that it takes for a line and a receipt."""
    rng = random.Random(0)
    edits = characters = lines = 0
    seconds = [0.0, 0.0]
    credits = []
    for receipt in receipts:
        image = Image.open(folder / receipt["image"], formats=("JPEG", "PNG")).convert("L")
        known = [line for line in receipt["lines"] if line["text"].strip()]
        for line in rng.sample(known, min(LINES_EACH, len(known))):
            x0, y0, x1, y1 = line["box"]
            crop = image.crop((x0 - MARGIN, y0 - MARGIN, x1 + MARGIN, y1 + MARGIN))
            start = time.perf_counter()
            read = engine.line(crop)
            seconds[0] += time.perf_counter() - start
            truth = " ".join(line["text"].upper().split())
            edits += edit_distance(" ".join(read.upper().split()), truth)
            characters, lines = characters + len(truth), lines + 1
        if receipt["fields"].get("total"):
            start = time.perf_counter()
            page = engine.page(image)
            seconds[1] += time.perf_counter() - start
            credits.append(anls(total_of(page), [receipt["fields"]["total"]]))
    return {
        "lines, character error rate": edits / max(1, characters),
        "total, ANLS": sum(credits) / max(1, len(credits)),
        "seconds a line": seconds[0] / max(1, lines),
        "seconds a receipt": seconds[1] / max(1, len(credits)),
        "lines": lines,
        "receipts": len(credits),
    }


def available(name: str) -> bool:
    """Return whether an engine is installed."""
    import importlib.util

    return shutil.which("tesseract") is not None if name == "tesseract" else importlib.util.find_spec(name) is not None


def main() -> None:
    """Measure the installed engines and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with receipts.jsonl and images")
    parser.add_argument("--receipts", type=int, default=100, help="receipts, from the end of the file (default: 100)")
    parser.add_argument("--engines", nargs="+", choices=tuple(ENGINES), default=list(ENGINES))
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    source = arguments.folder / "receipts.jsonl"
    if not source.is_file():
        parser.error(f"no {source}: give a folder with receipts.jsonl (see --help)")
    receipts = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()][-arguments.receipts :]
    figures: dict[str, dict[str, float]] = {}
    for name in arguments.engines:
        if not available(name):
            print(f"{name}: not installed, left out")
            continue
        figures[name] = measure(ENGINES[name](), receipts, arguments.folder)
        print(
            f"{name}: "
            + ", ".join(f"{what} {value:.3f}".rstrip("0").rstrip(".") for what, value in figures[name].items())
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
