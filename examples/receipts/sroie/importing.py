"""Receipts into the files that training and evaluation read."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from ...constants import IMAGE_TOKEN
from .crops import any_band, band_around, cut_band, cut_line, open_page, scale_line, scale_page
from .questions import FIELD_QUESTIONS, FIXED_QUESTIONS, LINE_QUESTIONS, PAGE_QUESTIONS, READ_LINE
from .receipt import FIELDS, Receipt, Row, TextLine, comparable, reading_rows, row_text, rows_of_field
from .sources import Problem, read_receipts
from .splitting import split_receipts

TRAINING_TASKS = ("lines", "bands", "fields", "pages")
BENCHMARK_FILES = ("receipts_lines", "receipts_fields")

_JPEG_QUALITY = 92
_FREE_BANDS = 4
"""Bands without a field that are transcribed, of each receipt."""

Asked = tuple[str, str]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportOptions:
    """How receipts are split, cut and asked about.

    Attributes:
        train: Receipts to train on; None takes all that the test leaves.
        test: Receipts to test on.
        seed: Of the split and of the wording of questions.
        page_width: Pages wider than this are scaled down, in pixels.
        line_height: Height that cut-out lines are scaled to, in pixels.
        test_lines: Lines drawn from each receipt of the test.
    """

    train: int | None = None
    test: int = 100
    seed: int = 0
    page_width: int = 768
    line_height: int = 64
    test_lines: int = 5

    def __post_init__(self) -> None:
        for name, least in (("test", 1), ("page_width", 64), ("line_height", 16), ("test_lines", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.train is not None and self.train < 0:
            raise ValueError(f"train must be at least 0, got {self.train}")


@dataclass
class _Files:
    """Records by the file that they go to."""

    folder: Path
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, file: str, record: dict[str, Any]) -> None:
        self.records.setdefault(file, []).append(record)

    def write(self) -> dict[str, int]:
        for name, records in sorted(self.records.items()):
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            (self.folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        return {name: len(records) for name, records in sorted(self.records.items())}


def import_receipts(
    source: Path,
    target: Path,
    options: ImportOptions | None = None,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read receipts, split them and write what is trained and tested with.

    ``target`` gets ``images`` (pages), ``crops`` (lines and bands), in the LLaVA format ``train_lines.jsonl``,
    ``train_bands.jsonl``, ``train_fields.jsonl`` and ``train_pages.jsonl``, for ``convllava eval`` the files
    ``receipts_lines.jsonl`` and ``receipts_fields.jsonl``, and ``import.json``, which says what became of each
    receipt. All is written beside the destination and moved there at the end.

    Args:
        source: A folder in one of SROIE's layouts, or a JSONL file.
        target: A path that does not exist yet, or an empty folder.
        options: How to split, cut and ask.
        skip_bad: Leave out receipts that cannot be used and list them, instead of stopping at the first.
        progress: Called after each receipt with the number written and the number in all.

    Returns:
        What ``import.json`` holds.

    Raises:
        ValueError: A receipt cannot be used, or there are too few.
        FileExistsError: The destination is in use.
    """
    options = options or ImportOptions()
    _check_free(target)
    receipts, problems = read_receipts(source)
    if problems and not skip_bad:
        more = f" ({len(problems) - 1} more like this)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0].message}{more}; repair it, or leave such receipts out with --skip-bad")
    trained, tested, repeated = split_receipts(receipts, options.train, options.test, options.seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        draft = Path(scratch) / "receipts"
        counts = _write_all(trained, tested, draft, options, progress)
        report = _report(trained, tested, problems, repeated, options, counts)
        (draft / "import.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _check_free(target)
        if target.exists():
            target.rmdir()
        draft.rename(target)
    return report


def _check_free(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty: give a new path, or remove it first")


def _write_all(
    trained: Sequence[Receipt],
    tested: Sequence[Receipt],
    draft: Path,
    options: ImportOptions,
    progress: Progress | None,
) -> dict[str, int]:
    for name in ("images", "crops"):
        (draft / name).mkdir(parents=True)
    files = _Files(draft)
    whole = len(trained) + len(tested)
    for number, receipt in enumerate([*trained, *tested]):
        writer = _Writer(receipt, files, options)
        if number < len(trained):
            writer.write_training()
        else:
            writer.write_test()
        if progress is not None:
            progress(number + 1, whole)
    return files.write()


class _Writer:
    """Writes one receipt; every choice it makes follows from the seed and the receipt's name."""

    def __init__(self, receipt: Receipt, files: _Files, options: ImportOptions) -> None:
        self._receipt, self._files, self._options = receipt, files, options
        self._rng = random.Random(f"{options.seed}:{receipt.name}")
        self._original = open_page(receipt.image)
        self._page = scale_page(self._original, options.page_width)
        factor = self._page.width / self._original.width
        self._rows: list[Row] = [tuple(scale_line(line, factor) for line in row) for row in reading_rows(receipt.lines)]

    def write_training(self) -> None:
        page = self._save_page()
        for number, line in enumerate(self._receipt.lines):
            self._add_dialogue("train_lines", self._save_line(number, line), [(self._any(LINE_QUESTIONS), line.text)])
        for number, (band, asked) in enumerate(self._bands()):
            self._add_dialogue("train_bands", self._save_crop(f"band{number}", band), asked)
        fields = [(self._any(FIELD_QUESTIONS[name]), value) for name, value in self._receipt.fields.items()]
        if fields:
            self._add_dialogue("train_fields", page, self._rng.sample(fields, len(fields)))
        if self._rows:
            transcript = "\n".join(row_text(row) for row in self._rows)
            self._add_dialogue("train_pages", page, [(self._any(PAGE_QUESTIONS), transcript)])

    def write_test(self) -> None:
        page = self._save_page()
        lines = list(enumerate(self._receipt.lines))
        for number, line in sorted(self._rng.sample(lines, min(self._options.test_lines, len(lines)))):
            row = {"question": READ_LINE, "answer": line.text}
            self._add_question("receipts_lines", f"{number:03d}", self._save_line(number, line), row)
        for name, value in self._receipt.fields.items():
            row = {"question": FIXED_QUESTIONS[name], "answer": value, "field": name}
            self._add_question("receipts_fields", name, page, row)

    def _bands(self) -> Iterator[tuple[Image.Image, list[Asked]]]:
        """Yield a band of rows around each field that is found, and some more, with what is asked about each."""
        count = len(self._rows)
        for name, value in self._receipt.fields.items():
            found = rows_of_field(self._rows, name, value)
            if found is not None:
                first, last = band_around(self._rng, *found, count)
                question = self._any(FIELD_QUESTIONS[name])
                yield cut_band(self._page, self._rows[first : last + 1]), [(question, value)]
        for _ in range(min(_FREE_BANDS, count)):
            first, last = any_band(self._rng, count)
            rows = self._rows[first : last + 1]
            yield cut_band(self._page, rows), [(self._any(PAGE_QUESTIONS), "\n".join(map(row_text, rows)))]

    def _save_page(self) -> str:
        """Save the page as it is, or scaled down; return its path within the data set."""
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

    def _save_crop(self, what: str, crop: Image.Image) -> str:
        path = f"crops/{self._receipt.name}-{what}.png"
        crop.save(self._files.folder / path, compress_level=1)
        return path

    def _any(self, wordings: Sequence[str]) -> str:
        return self._rng.choice(wordings)

    def _add_dialogue(self, file: str, image: str, asked: Sequence[Asked]) -> None:
        turns = []
        for number, (question, answer) in enumerate(asked):
            opening = f"{IMAGE_TOKEN}\n" if number == 0 else ""
            turns += [{"from": "human", "value": opening + question}, {"from": "gpt", "value": answer}]
        name = image.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        self._files.add(file, {"id": f"{file}/{name}", "image": image, "conversations": turns})

    def _add_question(self, file: str, what: str, image: str, row: dict[str, str]) -> None:
        self._files.add(file, {"index": f"{self._receipt.name}/{what}", "image": image, **row})


def _report(
    trained: Sequence[Receipt],
    tested: Sequence[Receipt],
    problems: Sequence[Problem],
    repeated: Sequence[Receipt],
    options: ImportOptions,
    counts: dict[str, int],
) -> dict[str, Any]:
    shops = {comparable(own.fields["company"]) for own in trained if "company" in own.fields}
    known = sum(comparable(own.fields.get("company", "")) in shops for own in tested)
    return {
        "options": asdict(options),
        "records": counts,
        "train": [own.name for own in trained],
        "test": [own.name for own in tested],
        "test_from_companies_in_train": known,
        "without": {name: sum(name not in own.fields for own in (*trained, *tested)) for name in FIELDS},
        "skipped": [asdict(own) for own in problems],
        "repeated": [own.name for own in repeated],
    }
