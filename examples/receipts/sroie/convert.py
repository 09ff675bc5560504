"""Conversion of receipts to the files that training and evaluation read."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from convllava.constants import IMAGE_TOKEN
from convllava.support import atomic_directory

from .crops import any_band, band_around, cut_band, cut_line, open_page, scale_line, scale_page
from .files import Problem, read_receipts
from .questions import FIELD_QUESTIONS, FIXED_QUESTIONS, LINE_QUESTIONS, PAGE_QUESTIONS, READ_LINE
from .receipt import FIELDS, Receipt, Row, TextLine, comparable, reading_rows, row_text, rows_of_field
from .split import split_receipts

TRAINING_TASKS = ("lines", "bands", "fields", "pages")
BENCHMARK_FILES = ("receipts_lines", "receipts_fields")

_JPEG_QUALITY = 92
_FREE_BANDS = 4
"""Bands of each receipt that are transcribed, in addition to those around a field."""

Asked = tuple[str, str]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConversionOptions:
    """Options of the split, the crops and the questions.

    Attributes:
        train: Number of training receipts; None takes all that the test leaves.
        test: Number of test receipts.
        seed: Seed of the split and of the wording of questions.
        page_width: Maximum width of pages in pixels; wider ones are scaled down.
        line_height: Height of cropped lines in pixels.
        test_lines: Lines drawn from each test receipt.
        validation: Number of receipts held out for validation, in addition to those for training.
    """

    train: int | None = None
    test: int = 100
    seed: int = 0
    page_width: int = 768
    line_height: int = 64
    test_lines: int = 5
    validation: int = 0

    def __post_init__(self) -> None:
        for name, least in (("test", 1), ("page_width", 64), ("line_height", 16), ("test_lines", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("train", "validation"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass
class _Files:
    """Records of each output file."""

    folder: Path
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, file: str, record: dict[str, Any]) -> None:
        self.records.setdefault(file, []).append(record)

    def write(self) -> dict[str, int]:
        for name, records in sorted(self.records.items()):
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            (self.folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        return {name: len(records) for name, records in sorted(self.records.items())}


def convert_receipts(
    source: Path,
    target: Path,
    options: ConversionOptions | None = None,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read receipts, split them and write training data and benchmarks.

    ``target`` gets ``images`` (pages) and ``crops`` (lines and bands); in the LLaVA format ``train_lines.jsonl``,
    ``train_bands.jsonl``, ``train_fields.jsonl`` and ``train_pages.jsonl``; for ``convllava eval`` the files
    ``receipts_lines.jsonl`` and ``receipts_fields.jsonl``; and the report, ``import.json``. Receipts for validation
    have the same files as those for training, named ``validation_...``. An interrupted conversion leaves
    nothing behind.

    Args:
        source: A folder in one of SROIE's layouts, or a JSONL file.
        target: A path that does not exist yet, or an empty folder.
        options: Options of the split, the crops and the questions.
        skip_bad: Whether to leave out and list receipts that cannot be used, instead of stopping at the first.
        progress: Called after each receipt with the number written and the total.

    Returns:
        The content of ``import.json``.

    Raises:
        ValueError: A receipt cannot be used, there are too few, or the target is not empty.
    """
    options = options or ConversionOptions()
    with atomic_directory(target) as draft:
        receipts, problems = read_receipts(source)
        if problems and not skip_bad:
            more = f" ({len(problems) - 1} more like this)" if len(problems) > 1 else ""
            raise ValueError(f"{problems[0].message}{more}; repair it, or leave such receipts out with --skip-bad")
        wanted = None if options.train is None else options.train + options.validation
        others, test_receipts, repeated = split_receipts(receipts, wanted, options.test, options.seed)
        if options.validation and options.validation >= len(others):
            raise ValueError(f"validation takes {options.validation} of {len(others)} receipts: lower it, none is left")
        training = others[: len(others) - options.validation]
        validation = others[len(training) :]
        parts = {"train": training, "validation": validation, "test": test_receipts}
        counts = _write_all(parts, draft, options, progress)
        report = _report(parts, problems, repeated, options, counts)
        (draft / "import.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _write_all(
    parts: dict[str, Sequence[Receipt]], draft: Path, options: ConversionOptions, progress: Progress | None
) -> dict[str, int]:
    for name in ("images", "crops"):
        (draft / name).mkdir(parents=True)
    files = _Files(draft)
    each = [(part, receipt) for part, receipts in parts.items() for receipt in receipts]
    for number, (part, receipt) in enumerate(each, start=1):
        writer = _Writer(receipt, files, options)
        if part == "test":
            writer.write_test()
        else:
            writer.write_dialogues(part)
        if progress is not None:
            progress(number, len(each))
    return files.write()


class _Writer:
    """Writes one receipt; its random choices depend on the seed and the receipt's name alone."""

    def __init__(self, receipt: Receipt, files: _Files, options: ConversionOptions) -> None:
        self._receipt, self._files, self._options = receipt, files, options
        self._rng = random.Random(f"{options.seed}:{receipt.name}")
        self._original = open_page(receipt.image)
        self._page = scale_page(self._original, options.page_width)
        factor = self._page.width / self._original.width
        self._rows: list[Row] = [tuple(scale_line(line, factor) for line in row) for row in reading_rows(receipt.lines)]

    def write_dialogues(self, part: str) -> None:
        """Write lines, bands, fields and the page as dialogues of a part, ``train`` or ``validation``."""
        page = self._save_page()
        for number, line in enumerate(self._receipt.lines):
            asked = [(self._choose(LINE_QUESTIONS), line.text)]
            self._add_dialogue(f"{part}_lines", self._save_line(number, line), asked)
        for number, (band, asked) in enumerate(self._bands()):
            self._add_dialogue(f"{part}_bands", self._save_crop(f"band{number}", band), asked)
        fields = [(self._choose(FIELD_QUESTIONS[name]), value) for name, value in self._receipt.fields.items()]
        if fields:
            self._add_dialogue(f"{part}_fields", page, self._rng.sample(fields, len(fields)))
        if self._rows:
            transcript = "\n".join(row_text(row) for row in self._rows)
            self._add_dialogue(f"{part}_pages", page, [(self._choose(PAGE_QUESTIONS), transcript)])

    def write_test(self) -> None:
        page = self._save_page()
        lines = list(enumerate(self._receipt.lines))
        for number, line in sorted(self._rng.sample(lines, min(self._options.test_lines, len(lines)))):
            question = {"question": READ_LINE, "answer": line.text}
            self._add_question("receipts_lines", f"{number:03d}", self._save_line(number, line), question)
        for name, value in self._receipt.fields.items():
            question = {"question": FIXED_QUESTIONS[name], "answer": value, "field": name}
            self._add_question("receipts_fields", name, page, question)

    def _bands(self) -> Iterator[tuple[Image.Image, list[Asked]]]:
        """Yield bands of rows with questions and answers: one around each field that is found, and some others."""
        count = len(self._rows)
        for name, value in self._receipt.fields.items():
            found = rows_of_field(self._rows, name, value)
            if found is not None:
                first, last = band_around(self._rng, *found, count)
                question = self._choose(FIELD_QUESTIONS[name])
                yield cut_band(self._page, self._rows[first : last + 1]), [(question, value)]
        for _ in range(min(_FREE_BANDS, count)):
            first, last = any_band(self._rng, count)
            rows = self._rows[first : last + 1]
            yield cut_band(self._page, rows), [(self._choose(PAGE_QUESTIONS), "\n".join(map(row_text, rows)))]

    def _save_page(self) -> str:
        """Save the page unchanged or scaled down and return its path within the data set."""
        name, source = self._receipt.name, self._receipt.image
        if self._page is self._original:
            path = f"images/{name}{source.suffix.lower()}"
            (self._files.folder / path).write_bytes(source.read_bytes())
        else:
            path = f"images/{name}.jpg"
            self._page.save(self._files.folder / path, quality=_JPEG_QUALITY)
        return path

    def _save_line(self, number: int, line: TextLine) -> str:
        return self._save_crop(f"{number:03d}", cut_line(self._original, line, self._options.line_height))

    def _save_crop(self, name: str, crop: Image.Image) -> str:
        path = f"crops/{self._receipt.name}-{name}.png"
        crop.save(self._files.folder / path, compress_level=1)
        return path

    def _choose(self, wordings: Sequence[str]) -> str:
        return self._rng.choice(wordings)

    def _add_dialogue(self, file: str, image: str, asked: Sequence[Asked]) -> None:
        turns = []
        for number, (question, answer) in enumerate(asked):
            opening = f"{IMAGE_TOKEN}\n" if number == 0 else ""
            turns += [{"from": "human", "value": opening + question}, {"from": "gpt", "value": answer}]
        name = image.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        self._files.add(file, {"id": f"{file}/{name}", "image": image, "conversations": turns})

    def _add_question(self, file: str, name: str, image: str, question: dict[str, str]) -> None:
        self._files.add(file, {"index": f"{self._receipt.name}/{name}", "image": image, **question})


def _report(
    parts: dict[str, Sequence[Receipt]],
    problems: Sequence[Problem],
    repeated: Sequence[Receipt],
    options: ConversionOptions,
    counts: dict[str, int],
) -> dict[str, Any]:
    training, test_receipts = parts["train"], parts["test"]
    shops = {comparable(receipt.fields["company"]) for receipt in training if "company" in receipt.fields}
    known = sum(comparable(receipt.fields.get("company", "")) in shops for receipt in test_receipts)
    return {
        "options": asdict(options),
        "records": counts,
        **{part: [receipt.name for receipt in receipts] for part, receipts in parts.items()},
        "test_from_companies_in_train": known,
        "without": {
            name: sum(name not in receipt.fields for receipts in parts.values() for receipt in receipts)
            for name in FIELDS
        },
        "skipped": [asdict(problem) for problem in problems],
        "repeated": [receipt.name for receipt in repeated],
    }
