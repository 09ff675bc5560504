"""Layouts of data that other programs write, each converted to a record of dialogue (``data.records``).

A format is a ``RecordFormat``: its name, how a record of it is recognized, and how it is read. ``open_records`` opens a
file of any of them. To add one, add it to ``FORMATS``, the most specific first.
"""

from .record_files import FORMATS, NAMES, UNKNOWN, RecordFile, format_named, open_records, recognize
from .record_format import IMAGE_KEYS, RecordFormat

__all__ = [
    "FORMATS",
    "IMAGE_KEYS",
    "NAMES",
    "UNKNOWN",
    "RecordFile",
    "RecordFormat",
    "format_named",
    "open_records",
    "recognize",
]
