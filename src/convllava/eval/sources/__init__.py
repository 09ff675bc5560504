"""Benchmark files as users have them: VLMEvalKit's TSV, the hub's parquet, local JSONL."""

from .cells import parse_answers, parse_index
from .files import default_folder, find_files
from .jsonl import read_jsonl
from .parquet import read_parquet
from .table import BenchmarkImage, Table
from .tsv import read_tsv

__all__ = [
    "BenchmarkImage",
    "Table",
    "default_folder",
    "find_files",
    "parse_answers",
    "parse_index",
    "read_jsonl",
    "read_parquet",
    "read_tsv",
]
