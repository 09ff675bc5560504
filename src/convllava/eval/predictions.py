"""Prediction files: one JSON line a sample, appended as soon as it is answered."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..support import read_json, write_json, write_text
from .outcome import Prediction

Line = dict[str, Any]
"""Keys sample_id, benchmark, prediction, error, num_image_tokens, image_sizes, images (a name of each, equal for equal
images), model_fingerprint, protocol_hash, and row: everything about the sample but its images, so that answers can be
scored without the data."""


_LINE = {
    "sample_id": str,
    "benchmark": str,
    "prediction": str | None,
    "error": str | None,
    "row": dict,
}
_OPTIONAL = {"images": [str], "model_fingerprint": str, "protocol_hash": str}
"""Keys that lines of earlier versions, or of other programs, may lack."""

RUN = {
    "protocol": {"data": {"questions": int}, "image": dict},
    "protocol_hash": str,
    "model": {"name": str, "fingerprint": str},
    "warnings": [str],
}
"""Types in a protocol file, as far as they are used."""


def find_mismatch(value: Any, expected: Any, name: str = "") -> str | None:
    """Return the name of the first entry that is missing or has another type than expected, or None.

    Args:
        value: Parsed JSON.
        expected: A type, a list with the type of all members, or a dictionary of these.
        name: Name of the value, for entries inside of it.
    """
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            return name or "its content"
        names = {key: f"{name}.{key}" if name else key for key in expected}
        found = (find_mismatch(value.get(key), inner, names[key]) for key, inner in expected.items())
        return next(filter(None, found), None)
    if isinstance(expected, list):
        is_list = isinstance(value, list) and all(find_mismatch(member, expected[0]) is None for member in value)
        return None if is_list else name
    is_bool_as_number = isinstance(value, bool) and expected is not bool
    return None if isinstance(value, expected) and not is_bool_as_number else name or "its content"


class PredictionFile:
    """The predictions of one benchmark in a folder.

    Rank 0 of a run appends to ``NAME.predictions.jsonl``, rank r to ``NAME.predictions.rank<r>.jsonl``; `finish` merges
    them, in the order of the samples. ``NAME.protocol.json`` has the protocol, the model and the versions.
    """

    def __init__(self, folder: Path, benchmark: str, rank: int = 0) -> None:
        self.folder, self.benchmark = folder, benchmark
        self.path = folder / f"{benchmark}.predictions.jsonl"
        self.protocol_path = folder / f"{benchmark}.protocol.json"
        self._rank_path = self.path if rank == 0 else folder / f"{benchmark}.predictions.rank{rank}.jsonl"

    def read(self) -> dict[str, Line]:
        """Return the lines of all ranks by sample id.

        Raises:
            ValueError: A complete line is damaged.
        """
        lines: dict[str, Line] = {}
        for path in self._files():
            for line in read_lines(path):
                lines.setdefault(line["sample_id"], line)
        return lines

    def check(self, run: Mapping[str, Any]) -> None:
        """Check that existing predictions were made by the same model under the same protocol.

        Args:
            run: Content of the protocol file of this run.

        Raises:
            ValueError: They were not; the message names the difference.
        """
        for line in self.read().values():
            if line["model_fingerprint"] != run["model"]["fingerprint"]:
                raise ValueError(
                    f"{self.path} was made by another model (fingerprint {line['model_fingerprint'][:12]}, this one "
                    f"has {run['model']['fingerprint'][:12]}): give another --out, or remove it"
                )
            if line["protocol_hash"] != run["protocol_hash"]:
                raise ValueError(
                    f"{self.path} was made under another protocol{self._difference(run)}: give another --out, or "
                    "remove it"
                )

    def write_protocol(self, run: Mapping[str, Any]) -> None:
        """Write the protocol file."""
        write_json(self.protocol_path, run)

    def read_protocol(self) -> dict[str, Any] | None:
        """Return the content of the protocol file, or None if it is missing.

        Raises:
            ValueError: The file is damaged.
        """
        if not self.protocol_path.is_file():
            return None
        run = read_json(self.protocol_path)
        fault = find_mismatch(run, RUN)
        if fault is not None:
            raise ValueError(
                f"{self.protocol_path} is damaged ({fault} is missing or invalid): restore it, or remove it to score "
                "without a protocol"
            )
        return run

    def append(self) -> "Appender":
        """Open this rank's file for appending, after removing an incomplete last line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Appender(self._rank_path)

    def finish(self, order: Sequence[str]) -> None:
        """Merge the files of all ranks atomically, in the order of these sample ids; other samples come last."""
        lines = self.read()
        known = set(order)
        ids = [*(name for name in order if name in lines), *(name for name in lines if name not in known)]
        write_text(self.path, "".join(dump_line(lines[name]) for name in ids))
        for path in self._files():
            if path != self.path:
                path.unlink()

    def _files(self) -> list[Path]:
        ranks = self.folder.glob(f"{self.benchmark}.predictions.rank*.jsonl")
        return [path for path in (self.path, *sorted(ranks)) if path.is_file()]

    def _difference(self, run: Mapping[str, Any]) -> str:
        earlier = self.read_protocol()
        found = protocol_differences(earlier["protocol"], run["protocol"]) if earlier else []
        return f" ({'; '.join(found[:3])}; file / this run)" if found else ""


class Appender:
    """Context manager that appends lines to a file."""

    def __init__(self, path: Path) -> None:
        if path.is_file():
            _remove_incomplete_line(path)
        self._stream = path.open("a", encoding="utf-8")

    def __enter__(self) -> "Appender":
        return self

    def __exit__(self, *reason: object) -> None:
        self._stream.close()

    def __call__(self, line: Line) -> None:
        """Write a line and flush it, so that it survives the end of this process."""
        self._stream.write(dump_line(line))
        self._stream.flush()


def dump_line(line: Line) -> str:
    """Return the text of a line."""
    return json.dumps(line, ensure_ascii=False) + "\n"


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a predictions file, without an incomplete last line of an interrupted run.

    Raises:
        ValueError: A line is not a prediction.
    """
    with path.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.endswith("\n"):
                return
            yield _parse_line(path, number, text)


def prediction_of(line: Line) -> Prediction:
    """Return the prediction of a line."""
    text, images = line["prediction"] or "", tuple(line.get("images", ()))  # earlier versions did not store images
    return Prediction(line["sample_id"], line["row"], text, line["error"], images=images)


def prediction_files(path: Path) -> list[Path]:
    """Return the predictions file at ``path``, or all in that folder.

    Raises:
        ValueError: There are none.
    """
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.predictions.jsonl"))
    if not found:
        raise ValueError(f"{path} holds no predictions (NAME.predictions.jsonl)")
    return found


def protocol_differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return the differences of two protocols, each as ``path: ours / theirs``."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for name in sorted({*ours, *theirs}):
            found += protocol_differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if ours == theirs else [f"{path}: {ours!r} / {theirs!r}"]


def _parse_line(path: Path, number: int, text: str) -> Line:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}, line {number} is not JSON ({error}): remove it to answer its sample again"
        ) from error
    missing = [name for name in _LINE if not isinstance(line, dict) or name not in line]
    if missing:
        raise ValueError(f"{path}, line {number} is not a prediction: it has no {', '.join(missing)}")
    given = {name: type_ for name, type_ in _OPTIONAL.items() if name in line}
    fault = find_mismatch(line, {**_LINE, **given})
    if fault is not None:
        raise ValueError(f"{path}, line {number} is not a prediction: {fault} is {line[fault]!r}")
    parsed: Line = line
    return parsed


def _remove_incomplete_line(path: Path) -> None:
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            stream.seek(position - 1)
            if stream.read(1) == b"\n":
                break
            position -= 1
        if position < end:
            stream.truncate(position)
