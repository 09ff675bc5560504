"""Receipts from disk: the SROIE data set in any of its layouts, or a JSONL file.

SROIE is distributed in several layouts, and all are read by the same rule: an image, a file of boxes and a file of key
fields belong together if they have the same name (except for the ending), in any folder below the source::

    img/000.jpg  box/000.csv  key/000.json                                              (a copy on GitHub)
    train/img/X51.jpg  train/box/X51.txt  train/entities/X51.txt  test/...              (a copy on Kaggle)
    0325updated.task1train(626p)/X51.jpg and X51.txt  0325updated.task2train(626p)/X51.txt   (the organizers')

A line of boxes is ``x1,y1,x2,y2,x3,y3,x4,y4,TEXT`` (four corners; commas in the text count as text); key fields are a
JSON object with some of ``company``, ``date``, ``address``, ``total``. Folders ``train`` and ``test`` directly below
the source are a given split.

A JSONL file has one receipt a line, with image paths relative to the file::

    {"image": "images/7.jpg", "fields": {"total": "12.50"}, "lines": [{"box": [14, 20, 90, 41], "text": "TOTAL"}]}
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from convllava.image_conversion import orientation
from convllava.images import DATA_SET_LIMITS, undecoded

from .receipt import FIELDS, PixelBox, Receipt, TextLine

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
ANNOTATION_ENDINGS = (".txt", ".csv", ".json")
SPLIT_FOLDERS = ("train", "test")

_BOX_LINE = re.compile(r"\s*(-?\d+)" + r"\s*,\s*(-?\d+)" * 7 + r"\s*,(.*)")


@dataclass(frozen=True)
class Problem:
    """A receipt that cannot be used.

    Attributes:
        name: Name of the receipt.
        message: The reason in one line, with the file.
    """

    name: str
    message: str


def read_receipts(source: Path) -> tuple[list[Receipt], list[Problem]]:
    """Return the receipts in the order of their names, and the problems of those that cannot be used.

    Raises:
        ValueError: The source does not exist, or no receipt can be used.
    """
    if source.is_file():
        return _read_jsonl(source)
    if not source.is_dir():
        raise ValueError(
            f"the folder {source} does not exist: give the folder with SROIE's images, boxes and keys, or a JSONL file"
        )
    folders = [source / name for name in SPLIT_FOLDERS]
    is_split = all(folder.is_dir() for folder in folders)
    parts = [(folder, folder.name) for folder in folders] if is_split else [(source, None)]
    receipts: list[Receipt] = []
    problems: list[Problem] = []
    for folder, part in parts:
        for name, files in _by_name(folder).items():
            try:
                receipts.append(_read_one(f"{part}-{name}" if part else name, files, part))
            except ValueError as error:
                problems.append(Problem(name, str(error)))
    _check_any(source, receipts, problems)
    return receipts, problems


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Group files by name; annotations without an image of the same name form groups too."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (*IMAGE_ENDINGS, *ANNOTATION_ENDINGS) and not path.name.startswith("."):
            groups.setdefault(path.stem, []).append(path)
    described = {name: paths for name, paths in groups.items() if not _is_readme(paths)}
    return dict(sorted(described.items()))


def _is_readme(paths: list[Path]) -> bool:
    """Return whether the files describe the data set rather than a receipt."""
    return all(path.suffix.lower() not in IMAGE_ENDINGS and path.stem.lower().startswith("readme") for path in paths)


def _read_one(name: str, files: list[Path], part: str | None) -> Receipt:
    images = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
    annotations = [path for path in files if path.suffix.lower() in ANNOTATION_ENDINGS]
    if not images:
        raise ValueError(f"{annotations[0]}: there is no image of this name")
    if not annotations:
        raise ValueError(f"{images[0]}: there are neither boxes nor key fields of this name")
    fingerprints = {_fingerprint(path) for path in images}
    if len(fingerprints) > 1:  # the boxes could belong to either
        raise ValueError(f"{images[0]} and {images[1]} have the same name but differ; remove one")
    size = _size_of(images[0])
    fields: dict[str, str] = {}
    lines: tuple[TextLine, ...] = ()
    for path in annotations:
        text = _decode(path)
        if text.lstrip().startswith("{"):
            fields = _fields(path, _parse(path, text))
        elif text.strip():
            lines = tuple(_boxes(path, text, size))
    return Receipt(name, images[0], size, fields, lines, part, fingerprints.pop())


def _fingerprint(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _decode(path: Path) -> str:
    """Return the text of a file in UTF-8 or, as a few files of the organizers, in Windows-1252."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            return data.decode("cp1252")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is neither UTF-8 nor Windows-1252 ({error}); save it as UTF-8") from error


def _boxes(path: Path, text: str, size: tuple[int, int]) -> Iterator[TextLine]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _BOX_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{path}, line {number}: expected x1,y1,x2,y2,x3,y3,x4,y4,TEXT, got {line!r}")
        corners = [int(value) for value in match.groups()[:8]]
        found = _text_line(f"{path}, line {number}", _enclosing(corners), match[9], size)
        if found is not None:
            yield found


def _enclosing(corners: list[int]) -> PixelBox:
    xs, ys = corners[0::2], corners[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _text_line(place: str, box: PixelBox, text: str, size: tuple[int, int]) -> TextLine | None:
    """Return a piece of text with its box clipped to the image; None where the annotation has no text."""
    height, width = size
    x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"{place}: the box {list(box)} has no pixel within the image of {width}x{height}")
    plain = " ".join(text.split())
    return TextLine((x0, y0, x1, y1), plain) if plain else None


def _fields(path: Path, values: Any, place: str = "") -> dict[str, str]:
    where = f"{path}{place}"
    if not isinstance(values, dict):
        raise ValueError(f"{where}: the key fields must be an object, got {type(values).__name__}")
    unknown = [name for name in values if name not in FIELDS]
    if unknown:
        raise ValueError(f"{where}: unknown key field {unknown[0]!r}; known: {', '.join(FIELDS)}")
    wrong = [name for name, value in values.items() if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{where}: the field {wrong[0]!r} must be text, got {values[wrong[0]]!r}")
    plain = {name: " ".join(values[name].split()) for name in FIELDS if name in values}
    return {name: value for name, value in plain.items() if value}


def _parse(path: Path, text: str, place: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}{place}: not valid JSON ({error})") from error


def _size_of(path: Path) -> tuple[int, int]:
    """Return (height, width) of an upright image that can be decoded completely."""
    with undecoded(path, limits=DATA_SET_LIMITS) as image:
        turned = orientation(image) != 1
        image.load()
        size = image.height, image.width
    if turned:
        raise ValueError(f"{path} is rotated by its EXIF orientation, so its boxes are ambiguous: save it upright")
    return size


def _read_jsonl(path: Path) -> tuple[list[Receipt], list[Problem]]:
    receipts: dict[str, Receipt] = {}
    problems: list[Problem] = []
    for number, line in enumerate(_decode(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f", line {number}"
        try:
            receipt = _jsonl_receipt(path, place, _parse(path, line, place))
            if receipt.name in receipts:
                raise ValueError(f"{path}{place}: a second receipt with the name {receipt.name!r}")
            receipts[receipt.name] = receipt
        except ValueError as error:
            problems.append(Problem(f"line {number}", str(error)))
    found = sorted(receipts.values(), key=lambda receipt: receipt.name)
    _check_any(path, found, problems)
    return found, problems


def _jsonl_receipt(path: Path, place: str, record: Any) -> Receipt:
    if not isinstance(record, dict) or not isinstance(record.get("image"), str):
        raise ValueError(f"{path}{place}: expected an object with 'image', the path of an image")
    image = path.parent / record["image"]
    if not image.is_file():
        raise ValueError(f"{path}{place}: no image {image}")
    size = _size_of(image)
    lines = record.get("lines", [])
    if not isinstance(lines, list):
        raise ValueError(f"{path}{place}: 'lines' must be a list, got {type(lines).__name__}")
    found = [_jsonl_line(f"{path}{place}, text {number}", line, size) for number, line in enumerate(lines)]
    fields = _fields(path, record.get("fields", {}), place)
    texts = tuple(line for line in found if line is not None)
    return Receipt(image.stem, image, size, fields, texts, None, _fingerprint(image))


def _jsonl_line(place: str, line: Any, size: tuple[int, int]) -> TextLine | None:
    box, text = (line.get("box"), line.get("text")) if isinstance(line, dict) else (None, None)
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    if not numbers or not isinstance(text, str):
        raise ValueError(f"{place}: expected 'box' [x0, y0, x1, y1] and 'text', got {line!r}")
    assert isinstance(box, list)
    x0, y0, x1, y1 = (round(value) for value in box)
    return _text_line(place, (x0, y0, x1, y1), text, size)


def _check_any(source: Path, receipts: list[Receipt], problems: list[Problem]) -> None:
    if not receipts:
        reason = f": {problems[0].message}" if problems else ": no image with boxes or key fields"
        raise ValueError(f"{source} holds no receipts{reason}")
