"""A contact sheet: images of a data set with questions and answers below."""

from PIL import Image, ImageDraw

from ..data.images import StoredImage, open_stored
from ..data.samples import Sample, SampleSource
from .fonts import load_font

_FONT = "open-sans-regular"
_FONT_SIZE = 11
_LINE_HEIGHT = 14
_MARGIN = 8
_CELL_WIDTH = 280
_MAX_LINES = 12
_BACKGROUND = (250, 250, 250)
_QUESTION_COLOR = (90, 90, 90)
_ANSWER_COLOR = (0, 0, 0)


def preview_sheet(dataset: SampleSource, count: int, columns: int = 4) -> Image.Image:
    """Draw the first ``count`` samples side by side, each image at its own size or shrunk to the column.

    Raises:
        ValueError: The data set is empty, or ``count`` or ``columns`` is below 1.
    """
    if min(count, columns, len(dataset)) < 1:
        raise ValueError(f"nothing to show: {count} of {len(dataset)} samples in {columns} columns")
    cells = [_cell(dataset[index]) for index in range(min(count, len(dataset)))]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    width = min(columns, len(cells)) * (_CELL_WIDTH + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, sum(heights) + _MARGIN * (len(rows) + 1)), _BACKGROUND)
    y = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (_MARGIN + column * (_CELL_WIDTH + _MARGIN), y))
        y += height + _MARGIN
    return sheet


def _cell(sample: Sample) -> Image.Image:
    images = [_shrunk(image) for image in sample.images]
    lines = [(line, _color(message["role"])) for message in sample.messages for line in _wrapped(_text(message))]
    lines = lines[:_MAX_LINES]
    height = sum(image.height for image in images) + _LINE_HEIGHT * len(lines) + 4
    cell = Image.new("RGB", (_CELL_WIDTH, height), _BACKGROUND)
    y = 0
    for image in images:
        cell.paste(image, (0, y))
        y += image.height
    draw = ImageDraw.Draw(cell)
    for line, color in lines:
        draw.text((0, y), line, fill=color, font=load_font(_FONT, _FONT_SIZE))
        y += _LINE_HEIGHT
    return cell


def _shrunk(image: StoredImage) -> Image.Image:
    shrunk = open_stored(image).copy()
    shrunk.thumbnail((_CELL_WIDTH, 4 * _CELL_WIDTH))
    return shrunk


def _text(message: dict[str, object]) -> str:
    content = message["content"]
    if not isinstance(content, list):
        raise ValueError(f"the content of a message is a list of parts, got {type(content).__name__}")
    return "".join(part["text"] for part in content if part["type"] == "text")


def _wrapped(text: str) -> list[str]:
    """Break text between words into lines that fit a cell of the sheet."""
    font = load_font(_FONT, _FONT_SIZE)
    lines = []
    for line in text.split("\n"):
        start = ""
        for word in line.split(" "):
            longer = f"{start} {word}".strip()
            if start and font.getlength(longer) > _CELL_WIDTH:
                lines.append(start)
                longer = word
            start = longer
        lines.append(start)
    return lines


def _color(role: str) -> tuple[int, int, int]:
    return _ANSWER_COLOR if role == "assistant" else _QUESTION_COLOR
