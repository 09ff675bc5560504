"""Receipts with annotated lines and key fields, brought into the LLaVA format: the SROIE layout, or a JSONL file."""

from .importing import ImportOptions, import_receipts
from .receipt import FIELDS, Receipt, TextLine, reading_rows
from .sources import Problem, read_receipts

__all__ = [
    "FIELDS",
    "ImportOptions",
    "Problem",
    "Receipt",
    "TextLine",
    "import_receipts",
    "read_receipts",
    "reading_rows",
]
