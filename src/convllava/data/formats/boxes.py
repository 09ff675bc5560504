"""Formats of boxes: referring expressions (RefCOCO), COCO's annotations, and projects of the VGG Image Annotator.

The text of a box is that of every answer here: fractions of the image's padded square with two decimals
(``geometry``). A question is ``Where is the dog?``; the answer has the box of each dog of the image.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...geometry import box_to_square, format_box
from ...images import ImageError
from ..faults import RecordError
from ..images import shortened, stored_image, stored_size
from .record_format import Record, RecordFormat, dialogue, first_value, images_of, question_turn, text_of

logger = logging.getLogger(__name__)

_EXPRESSION_KEYS = ("sent", "sentence", "sentences", "expression", "ref", "phrase")
_LABEL_KEYS = ("label", "class", "name", "type", "category", "object")
_QUESTION = "Where is {}?"


def _is_refcoco(record: Record) -> bool:
    return first_value(record, ("bbox", "box")) is not None and first_value(record, _EXPRESSION_KEYS) is not None


def _read_refcoco(record: Record, image_folder: Path) -> dict[str, Any]:
    box = _numbers(first_value(record, ("bbox", "box")))
    if not (box[0] < box[2] and box[1] < box[3]):
        message = f"'bbox' must be x0, y0, x1, y1 in pixels with x0 < x1 and y0 < y1, got {shortened(box)}"
        raise RecordError("malformed", message)
    size = record.get("width"), record.get("height")
    if size == (None, None) and images_of(record):
        size = _size_of(images_of(record)[0], image_folder)
    return _located(record, [(_question(sentence), [box]) for sentence in _expressions(record)], size)


def _expressions(record: Record) -> list[str]:
    """Return the expressions for one box: a text, or RefCOCO's list of objects with ``sent`` and ``raw``."""
    given = first_value(record, _EXPRESSION_KEYS)
    members = given if isinstance(given, list) else [given]
    texts = [first_value(one, ("sent", "raw")) if isinstance(one, dict) else one for one in members]
    return [text_of(text, "sent").strip() for text in texts]


def _question(expression: str) -> str:
    """Return the question for the object that an expression or a label names."""
    if expression.endswith("?"):
        return expression
    plain = expression.removesuffix(".")
    return _QUESTION.format(plain if plain.lower().startswith("the ") else f"the {plain}")


def _size_of(image: Any, image_folder: Path) -> tuple[int, int]:
    """Return (width, height) of an image from its header.

    Raises:
        RecordError: There is no such image.
    """
    try:
        height, width = stored_size(stored_image(image, image_folder, "", 0))
    except ImageError as error:
        raise RecordError("missing_image", f"image {error}; its size is needed for its boxes") from error
    return width, height


def _located(record: Record, found: Sequence[tuple[str, list[Sequence[float]]]], size: Sequence[Any]) -> dict[str, Any]:
    """Return the dialogue of questions about boxes in pixels of an image of (width, height)."""
    if not (isinstance(size[0], int) and isinstance(size[1], int) and min(size) > 0):
        raise RecordError("malformed", f"width and height of the image must be whole numbers, got {shortened(size)}")
    turns: list[dict[str, Any]] = []
    for question, boxes in found:
        turns.append(question_turn(question, 0 if turns else 1))
        texts = [format_box(box_to_square(box, size[0], size[1])) for box in boxes]
        turns.append({"role": "assistant", "content": ", ".join(texts)})
    return dialogue(record, turns, images_of(record)[:1])


def _numbers(box: Any) -> list[float]:
    if isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(one, int | float) for one in box):
        return [float(one) for one in box]
    raise RecordError("malformed", f"a box has four numbers, got {shortened(box)}")


REFCOCO = RecordFormat("refcoco", "referring expressions with boxes", _is_refcoco, _read_refcoco)


def is_coco(content: Any) -> bool:
    """Return whether a JSON object has COCO's tables of images and annotations."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def coco_records(content: Mapping[str, Any]) -> Iterator[Any]:
    """Yield a record of dialogue for each image of COCO's tables that has annotations, or a ``RecordError``.

    Boxes (x, y, width, height) become a question for each category, captions one turn. Crowds (``iscrowd``) are left
    out, as in COCO's own evaluation.
    """
    categories = {one.get("id"): one.get("name") for one in content.get("categories") or []}
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            by_image.setdefault(annotation.get("image_id"), []).append(annotation)
    empty = 0
    for image in content["images"]:
        annotations = by_image.pop(image.get("id"), [])
        empty += not annotations
        if annotations:
            yield _attempt(_coco_record, image, annotations, categories)
    _log_empty(empty)
    for image_id, annotations in by_image.items():
        yield RecordError("missing_image", f"{len(annotations)} annotations are of the unknown image {image_id!r}")


def _coco_record(image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], categories: Any) -> dict[str, Any]:
    captions = [text_of(one["caption"], "caption") for one in annotations if one.get("caption")]
    named = {"id": image.get("id"), "image": image.get("file_name"), "images": None}
    if captions:
        turns = [question_turn("", 1), {"role": "assistant", "content": captions[0]}]
        return dialogue(named, turns, images_of(named), captions)
    boxes: dict[str, list[Sequence[float]]] = {}
    expression = first_value(image, ("caption", "expression"))
    for one in annotations:
        x, y, width, height = _numbers(one.get("bbox"))
        label = expression or categories.get(one.get("category_id"))
        if not isinstance(label, str):
            raise RecordError("malformed", f"category {one.get('category_id')!r} is not among the categories")
        boxes.setdefault(label, []).append((x, y, x + width, y + height))
    found = [(_question(label), members) for label, members in boxes.items()]
    return _located(named, found, (image.get("width"), image.get("height")))


def is_via(content: Any) -> bool:
    """Return whether a JSON object is a project or the annotations of the VGG Image Annotator, version 1 or 2."""
    if not isinstance(content, dict) or not content:
        return False
    entries = content.get("_via_img_metadata", content)
    first = next(iter(entries.values()), None) if isinstance(entries, dict) else None
    return isinstance(first, dict) and "filename" in first and "regions" in first


def via_records(content: Mapping[str, Any], image_folder: Path) -> Iterator[Any]:
    """Yield a record of dialogue for each image of VIA, or a ``RecordError``.

    The file does not have the sizes of the images, so their headers are read.
    """
    entries = content.get("_via_img_metadata", content)
    annotated = {key: entry for key, entry in entries.items() if not isinstance(entry, dict) or entry.get("regions")}
    _log_empty(len(entries) - len(annotated))
    for key, entry in annotated.items():
        yield _attempt(_via_record, key, entry, image_folder)


def _log_empty(images: int) -> None:
    if images:
        logger.warning("%d images have no annotation and are left out", images)


def _via_record(key: str, entry: Mapping[str, Any], image_folder: Path) -> dict[str, Any]:
    regions = entry.get("regions") or []
    boxes: dict[str, list[Sequence[float]]] = {}
    for region in regions.values() if isinstance(regions, dict) else regions:
        boxes.setdefault(_via_label(region), []).append(_via_box(region.get("shape_attributes") or {}))
    size = _size_of(entry["filename"], image_folder)
    found = [(_question(label), members) for label, members in boxes.items()]
    return _located({"id": key, "image": entry["filename"]}, found, size)


def _via_label(region: Mapping[str, Any]) -> str:
    """Return the label of a region: its only attribute, or the one that is named like a label."""
    attributes = {name: _chosen(value) for name, value in (region.get("region_attributes") or {}).items()}
    given = {name: value for name, value in attributes.items() if value}
    label = next((given[name] for name in _LABEL_KEYS if name in given), None)
    if label is None and len(given) == 1:
        label = next(iter(given.values()))
    if label is None:
        raise RecordError(
            "malformed",
            f"a region needs one attribute, or one of {', '.join(_LABEL_KEYS)}, got {shortened(dict(attributes))}",
        )
    return label


def _chosen(value: Any) -> str:
    """Return the value of an attribute; of check boxes, the names of those that are set."""
    if isinstance(value, dict):
        return " ".join(str(name) for name, is_set in value.items() if is_set)
    return str(value).strip()


def _via_box(shape: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return the box around a region in pixels, x0, y0, x1, y1."""
    try:
        match shape.get("name"):
            case "rect":
                return shape["x"], shape["y"], shape["x"] + shape["width"], shape["y"] + shape["height"]
            case "circle" | "ellipse":
                rx, ry = shape.get("rx", shape.get("r")), shape.get("ry", shape.get("r"))
                return shape["cx"] - rx, shape["cy"] - ry, shape["cx"] + rx, shape["cy"] + ry
            case "polygon" | "polyline":
                xs, ys = shape["all_points_x"], shape["all_points_y"]
                return min(xs), min(ys), max(xs), max(ys)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError("malformed", f"a region's shape is incomplete: {shortened(dict(shape))}") from error
    raise RecordError("malformed", f"a region of shape {shape.get('name')!r} has no box: draw a rectangle or a polygon")


def _attempt(read: Any, *arguments: Any) -> Any:
    """Return the result of a function, or the ``RecordError`` that it raised."""
    try:
        return read(*arguments)
    except RecordError as error:
        return error
    except (AttributeError, KeyError, TypeError) as error:
        return RecordError("malformed", f"not as the format has it ({error!r})")
