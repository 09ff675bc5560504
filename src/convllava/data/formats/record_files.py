"""Data files of any layout as records: JSON, JSONL, CSV, TSV, COCO, VIA, and folders of images with texts."""

import ast
import csv
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ...image_bytes import is_data_url
from ...images import IMAGE_SUFFIXES
from ...support import did_you_mean, is_encodable
from ..faults import RecordError
from ..json_records import not_utf8, open_text, read_object, read_records
from .boxes import REFCOCO, coco_records, is_coco, is_via, via_records
from .dialogues import DIALOGUES
from .llamafactory import declared_format
from .questions import QUESTIONS
from .record_format import IMAGE_KEYS, RecordFormat, is_anything

logger = logging.getLogger(__name__)

FORMATS = (*DIALOGUES, REFCOCO, *QUESTIONS)
"""Formats of single records, the most specific first."""

COCO = RecordFormat("coco", "COCO annotations", is_coco)
VIA = RecordFormat("via", "VGG Image Annotator", is_via)
FOLDER = RecordFormat("folder", "images with texts", is_anything)
UNKNOWN = RecordFormat("unknown", "unknown format", is_anything)

NAMES = (*(known.name for known in FORMATS), "coco", "via", "folder")
"""Values of ``format`` in a recipe."""

_RECOGNIZED_BY = 32
"""Records from which the format of a file is recognized."""

_LISTS = ("data", "records", "samples", "annotations")
"""Keys of a list of records in a file that is one object."""

_METADATA = ("metadata.jsonl", "metadata.csv")
_SHORTEST_BASE64 = 80
_BASE64_OF_IMAGES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "Qk")
"""Beginnings of PNG, JPEG, GIF, WebP, TIFF and BMP in base64."""


TABLES = (".csv", ".tsv")

Entry = tuple[int, str, Any]
"""Number, text and content of a record, or an error in place of its content."""


@dataclass(frozen=True)
class RecordFile:
    """The records of a data file.

    Attributes:
        path: The file, or the folder of images.
        format: The format of its records.
        entries: The records in order.
        is_verbatim: Whether the text of a record is that of the file.
    """

    path: Path
    format: RecordFormat
    entries: Iterable[Entry]
    is_verbatim: bool = False


def recognize(records: Iterable[Any]) -> RecordFormat | None:
    """Return the most specific format of the first records that have a known one; None if none has."""
    found = [record for record in records if isinstance(record, Mapping)]
    return next((known for known in FORMATS if any(known.matches(record) for record in found)), None)


def format_named(name: str) -> RecordFormat:
    """Return a format of single records by its name.

    Raises:
        ValueError: The name is unknown.
    """
    by_name = {known.name: known for known in (*FORMATS, COCO, VIA, FOLDER)}
    if name not in by_name:
        raise ValueError(f"no format {name!r}{did_you_mean(name, NAMES)}: one of {', '.join(NAMES)}")
    return by_name[name]


def open_records(path: Path, image_folder: Path | None = None, format: str | None = None) -> RecordFile:
    """Open a data file whose format is recognized by its content, or given.

    Args:
        path: The file or folder.
        image_folder: Folder of the images, for formats that need their sizes; by default that of the file.
        format: Name of the format of its records (`NAMES`).

    Raises:
        ValueError: There is no such file, it cannot be read, or the format is unknown or another one.
    """
    given = None if format is None else format_named(format)
    if path.is_dir():
        return _open_folder(path, image_folder, format)
    if not path.is_file():
        raise ValueError(f"no data file {path}")
    if path.suffix.lower() in TABLES:
        return _recognized(RecordFile(path, UNKNOWN, _rows(path)), given)
    content = read_object(path)
    if content is None or (path.suffix == ".jsonl" and not (is_coco(content) or is_via(content))):
        return _recognized(RecordFile(path, UNKNOWN, read_records(path), is_verbatim=True), given)
    return _open_object(path, content, image_folder or path.parent, given)


def _open_object(path: Path, content: dict[str, Any], image_folder: Path, given: RecordFormat | None) -> RecordFile:
    """Open a file that is one JSON object: tables of COCO or VIA, a list of records under a key, or one record."""
    if given in (None, COCO) and is_coco(content):
        return RecordFile(path, COCO, _written(coco_records(content)))
    if given in (None, VIA) and is_via(content):
        return RecordFile(path, VIA, _written(via_records(content, image_folder)))
    held = next((content[key] for key in _LISTS if isinstance(content.get(key), list)), None)
    if held is None and recognize([content]) is not None:
        held = [content]
    if held is None:
        keys = ", ".join(list(content)[:8]) or "(none)"
        raise ValueError(f"{path}: expected a list of records, got an object with the keys {keys}")
    return _recognized(RecordFile(path, UNKNOWN, _written(held)), given)


def _recognized(file: RecordFile, given: RecordFormat | None) -> RecordFile:
    """Return the file with the format that is given, declared next to it, or that of its first records."""
    if given in (COCO, VIA, FOLDER):
        raise ValueError(f"{file.path} is not of the format {given.name!r} ({given.title}): leave 'format' out")
    declared = declared_format(file.path) if given in (None, format_named("llamafactory")) else None
    known = declared or given
    if known is not None:
        return replace(file, format=known)
    entries = iter(file.entries)
    first = list(islice(entries, _RECOGNIZED_BY))
    format = recognize(record for _, _, record in first) or UNKNOWN
    return replace(file, format=format, entries=chain(first, entries))


def _written(records: Iterable[Any]) -> Iterator[Entry]:
    """Yield records that are not a text of their own in a file."""
    for number, record in enumerate(records):
        yield number, "" if isinstance(record, Exception) else json.dumps(record), record


def _rows(path: Path) -> Iterator[Entry]:
    """Yield the rows of a CSV or TSV file with a header.

    Raises:
        ValueError: The file is not a table.
    """
    csv.field_size_limit(sys.maxsize if sys.maxsize < 1 << 32 else (1 << 31) - 1)  # cells with images are long
    try:
        with open_text(path, newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=_delimiter(path, header), restkey="")
            for number, row in enumerate(reader):
                record = _record_of_row(row)
                yield number, "" if isinstance(record, Exception) else json.dumps(record), record
    except csv.Error as error:
        raise ValueError(f"{path} is not a table that can be read ({error})") from error


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=header.count)


def _record_of_row(row: dict[str, Any]) -> dict[str, Any] | RecordError:
    """Return a row whose image cells are file names, data URLs or lists of them; empty cells are absent."""
    if row.get(""):
        return RecordError("malformed", f"the row has {len(row[''])} more cells than the header")
    damaged = next((cell for cell in row.values() if isinstance(cell, str) and not is_encodable(cell)), None)
    if damaged is not None:
        return not_utf8(damaged)
    record = {name: value for name, value in row.items() if value not in (None, "")}
    for name in IMAGE_KEYS:
        if name in record:
            record[name] = _image_cells(record[name])
    for name in ("answers", "answer", "choices", "options", "history", "captions"):
        listed = _list_in(record.get(name))
        if listed is not None and (name != "answer" or all(isinstance(one, str) for one in listed)):
            record[name] = listed
    return record


def _image_cells(cell: str) -> list[str]:
    cells = _list_in(cell) or [cell]
    return [one if is_data_url(str(one)) or not _is_base64(str(one)) else f"data:image/x;base64,{one}" for one in cells]


def _is_base64(cell: str) -> bool:
    return len(cell) >= _SHORTEST_BASE64 and "." not in cell and cell.startswith(_BASE64_OF_IMAGES)


def _list_in(cell: Any) -> list[Any] | None:
    """Return the list that a cell has as JSON or as a Python literal; None for any other text."""
    if not isinstance(cell, str) or not cell.startswith("["):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else None
    return None


def _open_folder(folder: Path, image_folder: Path | None, format: str | None) -> RecordFile:
    """Open a folder: its ``metadata.jsonl`` or ``.csv``, its images with texts, or the only data file in it.

    Raises:
        ValueError: There is nothing of these in it.
    """
    metadata = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if metadata is not None and format != FOLDER.name:
        return open_records(metadata, image_folder, format)
    entries = list(_images_with_texts(folder)) if format in (None, FOLDER.name) else []
    if any(not isinstance(record, Exception) for record in entries):
        return RecordFile(folder, FOLDER, _written(entries))
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".jsonl", *TABLES)]
    files = [path for path in files if path.name != "dataset_info.json"]
    if len(files) == 1:
        return open_records(files[0], image_folder, format)
    if not files:
        raise ValueError(f"{folder} has neither shards, nor images with a .txt each, nor a data file")
    names = ", ".join(sorted(path.name for path in files)[:5])
    raise ValueError(f"{folder} has several data files ({names}): name one of them")


def _images_with_texts(folder: Path) -> Iterator[Any]:
    """Yield a record for each image of a folder and its subfolders: the answer is the text of the same name."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        name = path.relative_to(folder).as_posix()
        try:
            text = path.with_suffix(".txt").read_text(encoding="utf-8-sig").strip()
        except FileNotFoundError:
            yield RecordError("no_answer", f"image {name!r} has no text: there is no {path.with_suffix('.txt').name}")
        except UnicodeDecodeError as error:
            yield RecordError("malformed", f"{path.with_suffix('.txt').name} is not UTF-8 text ({error})")
        else:
            turns = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": text}]
            yield {"id": name.rpartition(".")[0], "images": [name], "messages": turns}
