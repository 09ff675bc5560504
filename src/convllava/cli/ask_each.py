"""``convllava ask --each``: the same questions about each of many images, into a table."""

import csv
import glob
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from ..support import atomic_write, encodable
from . import options as opt
from .progress import progress_bar

if TYPE_CHECKING:
    from ..inference import AnswerAbout, ImageOf
    from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

SUFFIXES = (".csv", ".jsonl")

COLUMNS = ("file", "page", "question", "answer", "finish_reason", "error")
"""Columns of a CSV file; a JSONL file has boxes and visual tokens too."""

MAX_LISTED = 20
"""Number of unusable images that are listed; all of them are in the output."""

Key = tuple[str, int | None, str]
"""File, page and question of a record."""


@dataclass(frozen=True)
class EachArguments:
    """Questions about each of many images."""

    each: Annotated[
        bool,
        typer.Option(
            "--each", help="Ask about each image by itself: files, folders and patterns, PDFs and TIFFs page by page."
        ),
    ] = False
    out: Annotated[
        Path | None,
        typer.Option(metavar="OUT.csv|OUT.jsonl", help="Table of the answers of --each; a stopped run is resumed."),
    ] = None
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions of --each, one a line, in place of QUESTION.")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Number of questions that --each answers at a time.")] = 8

    def check_used(self) -> None:
        """Check that options of ``--each`` are not given without it, and the name of the output.

        Raises:
            ValueError: An option has no effect, or the output has another suffix.
        """
        if not self.each and (self.out or self.questions):
            name = "--out" if self.out else "--questions"
            raise ValueError(f"{name} has no effect without --each: add it")
        if self.out is not None and self.out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"--out {self.out}: the name must end in .csv or .jsonl")
        if self.out is not None and (self.out.is_dir() or not self.out.absolute().parent.is_dir()):
            raise ValueError(f"--out {self.out} cannot be written: it must be a file in a folder that exists")
        if self.out is not None and self.out.exists() and not partial_of(self.out).exists():
            raise ValueError(f"--out {self.out} exists already: give another name, or remove it")


def partial_of(out: Path) -> Path:
    """Return the file of the records of a run that is not complete."""
    return out.with_name(f"{out.name}.partial.jsonl")


@dataclass(frozen=True)
class Job:
    """What is asked about which files, and where the answers go.

    Attributes:
        files: Paths and URLs, in order.
        questions: Questions about each.
        out: Table to write; None prints each answer.
        as_json: Whether answers are printed as JSON.
        settings: Model and options, which a resumed run must have too.
    """

    files: Sequence[str]
    questions: Sequence[str]
    out: Path | None
    as_json: bool
    settings: dict[str, Any]


def files_and_questions(words: Sequence[str], each: EachArguments) -> tuple[list[str], list[str]]:
    """Return the files and the questions that the command line names.

    Raises:
        ValueError: There is no question, a file is missing, or a folder or a pattern has no images.
    """
    if each.questions is not None:
        opt.check_exists(each.questions, "the file of questions")
        lines = each.questions.read_text(encoding="utf-8-sig").splitlines()
        questions = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if not questions:
            raise ValueError(f"{each.questions} has no questions: write one a line")
        return expanded(words), questions
    *sources, question = words
    if not sources or not question.strip() or Path(question).exists():
        raise ValueError('the question is missing: usage: convllava ask FILE|FOLDER... "QUESTION" --each --out OUT.csv')
    return expanded(sources), [question]


def expanded(words: Sequence[str]) -> list[str]:
    """Return the files that words name: a file, a URL, all images and PDFs of a folder, or those that match a pattern.

    Raises:
        ValueError: A file is missing, or a folder or a pattern has no images.
    """
    files: list[str] = []
    for word in words:
        path = Path(word)
        found: list[str] = []
        if path.is_dir():
            found = sorted(map(str, _images_in(path)))
        elif path.exists() or word.startswith(("http://", "https://", "data:")):
            found = [word]
        elif any(sign in word for sign in "*?["):
            found = sorted(name for name in glob.glob(word, recursive=True) if Path(name).is_file())
        elif word == "-":
            raise ValueError("--each needs files: standard input is a single image")
        else:
            opt.check_exists(word)
        if not found:
            raise ValueError(f"{word} has no images and no PDFs")
        files += found
    return list(dict.fromkeys(files))


def _images_in(folder: Path) -> Iterator[Path]:
    from ..images import IMAGE_SUFFIXES

    suffixes = IMAGE_SUFFIXES | {".pdf", ".heic", ".heif"}
    return (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def answer_each(
    job: Job,
    loaded: "tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]",
    options: Any,
) -> int:
    """Ask and write the table; return how many questions have no answer.

    Args:
        job: Files, questions and output.
        loaded: Model and processor.
        options: Options of every question (`EachOptions`).

    Raises:
        ValueError: The output belongs to another run.
    """
    from ..inference import ask_each

    with ResultFile(job) as results, progress_bar("asking") as advance:
        images = Images(job.files, options.password)
        began, done, failed = time.perf_counter(), results.num_done, 0
        already = done
        for found in ask_each(*loaded, images, job.questions, options, is_done=results.is_done):
            results.add(record_of(found))
            done, failed = done + 1, failed + (found.error is not None)
            rate = (done - already) / max(time.perf_counter() - began, 1e-9)
            note = f"{rate:.1f} a second" + f", {failed} without an answer" * bool(failed)
            advance(done, images.num_known * len(job.questions), note)
        errors = results.finish()
    for record in errors[:MAX_LISTED]:
        opt.remark(f"error: {record['error']}")
    if len(errors) > MAX_LISTED:
        opt.remark(f"and {len(errors) - MAX_LISTED} more")
    if job.out is not None:
        without = f"; {len(errors)} without, the same command tries them again" if errors else ""
        opt.remark(f"{results.num_done} answers in {job.out}{without}")
    return len(errors)


class Images:
    """The images to ask about, file by file and page by page; files are opened as they are reached.

    Attributes:
        num_known: Number of images, with one for each file that is not reached yet.
    """

    def __init__(self, files: Sequence[str], password: str | None) -> None:
        self._files, self._password = files, password
        self.num_known = len(files)

    def __iter__(self) -> "Iterator[ImageOf]":
        from ..inference import pages_of

        for file in self._files:
            pages = pages_of(file, password=self._password)
            self.num_known += len(pages) - 1
            yield from pages


def record_of(found: "AnswerAbout") -> dict[str, Any]:
    """Return the record of one question about one image."""
    answer = found.answer
    return {
        "file": str(found.image.source),
        "page": found.image.page,
        "question": found.question,
        "answer": None if answer is None else answer.text,
        "finish_reason": None if answer is None else answer.finish_reason,
        "boxes": [] if answer is None else [[round(edge, 2) for edge in box] for box in answer.boxes],
        "num_image_tokens": None if answer is None else answer.num_image_tokens,
        "error": found.error,
    }


class ResultFile:
    """The table of a job; until it is complete, records are in ``OUT.partial.jsonl``, from which a run resumes.

    Attributes:
        num_done: Number of questions that have an answer.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._partial = None if job.out is None else partial_of(job.out)
        self._answered: dict[Key, dict[str, Any]] = {}
        self._errors: dict[Key, dict[str, Any]] = {}
        self._file: IO[str] | None = None

    @property
    def num_done(self) -> int:
        """Number of questions that have an answer."""
        return len(self._answered)

    def __enter__(self) -> "ResultFile":
        if self._partial is None:
            return self
        self._file = self._partial.open("a+", encoding="utf-8")
        try:
            _lock(self._file, self._partial)
            self._resume(self._file)
        except ValueError:
            self._file.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def _resume(self, file: IO[str]) -> None:
        """Take the answers of an earlier run from the file; a line that was cut off and errors do not count."""
        file.seek(0)
        lines = file.readlines()
        if lines and not lines[-1].endswith("\n"):
            file.write("\n")
        records = list(_records(lines))
        if not records:
            file.write(_line(self._job.settings))
        elif records[0] != self._job.settings:
            changed = sorted(key for key, value in self._job.settings.items() if records[0].get(key) != value)
            raise ValueError(
                f"{self._partial} is from a run with other options ({', '.join(changed)}): give another --out, or "
                "remove it"
            )
        self._answered = {_key(record): record for record in records[1:] if record["error"] is None}

    def is_done(self, image: "ImageOf", question: str) -> bool:
        """Return whether a question about an image has an answer."""
        return (str(image.source), image.page, question) in self._answered

    def add(self, record: dict[str, Any]) -> None:
        """Write a record at once, so that a killed run keeps it; without an output, print it."""
        into = self._answered if record["error"] is None else self._errors
        if self._file is not None:
            self._file.write(_line(record))
            self._file.flush()
            into[_key(record)] = record
        elif self._job.as_json:
            opt.show(_line(record))
            into[_key(record)] = {"error": record["error"]}
        else:
            place = f"{record['file']}:{record['page']}" if record["page"] else record["file"]
            asked = f"{record['question']}\t" if len(self._job.questions) > 1 else ""
            if record["error"] is None:
                opt.show(f"{place}\t{asked}{record['answer']}\n")
            into[_key(record)] = {"error": record["error"]}

    def finish(self) -> list[dict[str, Any]]:
        """Write the table in the order of files, pages and questions; return the records without an answer."""
        if self._job.out is None or self._partial is None:
            return list(self._errors.values())
        place = {file: number for number, file in enumerate(self._job.files)}
        asked = {question: number for number, question in enumerate(self._job.questions)}
        found = {**self._answered, **self._errors}
        keys = sorted(
            (key for key in found if key[0] in place and key[2] in asked),
            key=lambda key: (place[key[0]], key[1] or 0, asked[key[2]]),
        )
        write_table(self._job.out, [found[key] for key in keys], keys_of(self._job.settings))
        if not self._errors:
            self._partial.unlink()
        return list(self._errors.values())


def write_table(path: Path, records: Sequence[dict[str, Any]], keys: Sequence[str] = ()) -> None:
    """Write records as CSV or JSONL, by the suffix of the path, atomically.

    Args:
        path: The file.
        records: Records with the keys of `record_of`.
        keys: Keys of the answers, which are JSON objects; each has a column in a CSV file.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            file.writelines(map(_line, records))
            return
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *(f"answer.{key}" if key in COLUMNS else key for key in keys)])
        for record in records:
            values = _object_in(record["answer"]) if keys else {}
            cells = [record[name] for name in COLUMNS] + [values.get(key) for key in keys]
            writer.writerow(map(_cell, cells))


def keys_of(settings: dict[str, Any]) -> list[str]:
    """Return the keys that the answers have by a JSON schema."""
    schema = settings["request"].get("json_schema") or {}
    return list(schema.get("properties") or {})


def _object_in(answer: str | None) -> dict[str, Any]:
    """Return the JSON object in an answer, an empty one if it was cut off or is none."""
    with suppress(ValueError):
        found = json.loads(answer or "")
        return found if isinstance(found, dict) else {}
    return {}


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return encodable(value or "")
    return json.dumps(value)


def settings_of(model: str, options: Any) -> dict[str, Any]:
    """Return what a resumed run must have in common with the stopped one."""
    settings: dict[str, Any] = {
        "model": model,
        "image_options": options.image_options.given(),
        "request": {name: value for name, value in options.request.items() if value is not None},
    }
    return dict(json.loads(json.dumps(settings)))  # as it is read back


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _records(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):  # cut off when the run was killed
            yield json.loads(line)


def _key(record: dict[str, Any]) -> Key:
    return record["file"], record["page"], record["question"]


def _lock(file: IO[str], path: Path) -> None:
    """Keep a second run from the file, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"{path} is being written by another run: wait for it, or give another --out") from error
