"""Receipts with annotated lines and key fields, in SROIE's layouts or a JSONL file, converted to the LLaVA format."""

from .convert import ConversionOptions, convert_receipts
from .files import Problem, read_receipts
from .receipt import FIELDS, Receipt, TextLine, reading_rows

__all__ = [
    "FIELDS",
    "ConversionOptions",
    "Problem",
    "Receipt",
    "TextLine",
    "convert_receipts",
    "read_receipts",
    "reading_rows",
]
