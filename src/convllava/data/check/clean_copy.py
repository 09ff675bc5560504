"""A copy of a data set without unusable and repeated records."""

import json
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ...support import encodable
from ..conversations import ConversationDataset
from ..faults import BadSampleError, Fault
from ..files import FileDataset
from ..json_records import read_records
from ..records import role_of
from ..samples import Sample
from ..sharded.files import PARQUET, is_remote
from ..sharded.tar import sample_key
from .inspector import Inspection

Inspect = Callable[[Sample], Inspection]


@dataclass(frozen=True)
class CleanCopy:
    """The result of writing a clean copy.

    Attributes:
        path: The file, or the folder of shards.
        kept: Number of records that were copied unchanged.
        dropped: Number of records that were left out.
        repaired: Number of records whose roles were put in order, as in LLaVA's code: turns of the assistant before
            the first question and unanswered questions at the end are cut off.
    """

    path: Path
    kept: int
    dropped: int
    repaired: int


def write_clean_copy(dataset: FileDataset, faults: Collection[Fault], target: Path, inspect: Inspect) -> CleanCopy:
    """Write the records of a data set that have neither errors nor an earlier duplicate.

    Args:
        dataset: The data set that was checked.
        faults: The faults that the check found.
        target: A file for JSON and JSONL, a folder for shards; it must not exist.
        inspect: Inspects a repaired record.

    Raises:
        ValueError: The target exists or has another ending than the original, or shards are behind a URL.
    """
    if target.exists():
        raise ValueError(f"{target} exists; give a new path for the cleaned copy")
    target.parent.mkdir(parents=True, exist_ok=True)
    dropped = _dropped(faults)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        draft = Path(scratch) / target.name
        if isinstance(dataset, ConversationDataset) and not dataset.is_verbatim:
            raise ValueError(
                f"a cleaned copy is made of JSON lists, JSONL and shards, not of {dataset.path} "
                f"({dataset.format.title}): 'convllava data convert' writes it in another format"
            )
        if isinstance(dataset, ConversationDataset):
            cleaned = _clean_records(dataset, dropped.get(str(dataset.path), set()), faults, draft, inspect)
        else:
            cleaned = _clean_shards(dataset.files, dropped, draft)
        draft.rename(target)
    return CleanCopy(target, *cleaned)


def _dropped(faults: Collection[Fault]) -> dict[str, set[int]]:
    """Return the records of each file that are left out."""
    found: dict[str, set[int]] = {}
    for fault in faults:
        if (fault.is_error or fault.kind == "duplicate") and fault.record is not None:
            found.setdefault(fault.file, set()).add(fault.record)
    return found


def _clean_records(
    dataset: ConversationDataset, dropped: set[int], faults: Collection[Fault], draft: Path, inspect: Inspect
) -> tuple[int, int, int]:
    path = dataset.path
    if draft.suffix != path.suffix:
        raise ValueError(f"the cleaned copy of {path} must end in {path.suffix}, got {draft.name}")
    misplaced = {fault.record for fault in faults if fault.kind == "role_order" and fault.file == str(path)}
    kept: list[str] = []
    repaired = 0
    for number, text, record in read_records(path):
        if number not in dropped:
            kept.append(text.strip())
        elif (
            number in misplaced
            and dataset.format.read is None  # only dialogues have turns to cut
            and (cut := repaired_record(record))
            and _is_good(dataset, cut, number, inspect)
        ):
            kept.append(encodable(json.dumps(cut, ensure_ascii=False)))  # in JSON an escape is the value
            repaired += 1
    draft.write_text("\n".join(kept) + "\n" if path.suffix == ".jsonl" else "[\n" + ",\n".join(kept) + "\n]\n", "utf-8")
    return len(kept), len(dropped) - repaired, repaired


def repaired_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record cut so that it begins with a question and ends with an answer; empty if none is left."""
    key = "conversations" if record.get("conversations") else "messages"
    turns = list(record[key])
    roles = [role_of(turn) for turn in turns]
    first = 1 if roles[0] == "system" else 0
    start, stop = first, len(turns)
    while start < stop and roles[start] == "assistant":
        start += 1
    while stop > start and roles[stop - 1] == "user":
        stop -= 1
    return {**record, key: turns[:first] + turns[start:stop]} if start < stop else {}


def _is_good(dataset: ConversationDataset, record: dict[str, Any], number: int, inspect: Inspect) -> bool:
    try:
        return not inspect(dataset.sample_of(record, number)).has_errors
    except BadSampleError:
        return False


def _clean_shards(files: list[str], dropped: dict[str, set[int]], draft: Path) -> tuple[int, int, int]:
    draft.mkdir()
    kept = 0
    for file in files:
        if is_remote(file):
            raise ValueError(f"{file} is not on this machine: a cleaned copy is made of local shards only")
        clean = _clean_parquet if file.endswith(PARQUET) else _clean_tar
        kept += clean(Path(file), dropped.get(file, set()), draft / Path(file).name)
    return kept, sum(map(len, dropped.values())), 0


def _clean_parquet(source: Path, dropped: set[int], target: Path) -> int:
    from pyarrow import array  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile, ParquetWriter  # type: ignore[import-untyped]

    opened = ParquetFile(source)
    first = kept = 0
    with ParquetWriter(target, opened.schema_arrow) as writer:
        for group in range(opened.num_row_groups):
            table = opened.read_row_group(group)
            mask = [first + offset not in dropped for offset in range(len(table))]
            writer.write_table(table.filter(array(mask)))
            first, kept = first + len(table), kept + sum(mask)
    return kept


def _clean_tar(source: Path, dropped: set[int], target: Path) -> int:
    mode: Literal["w", "w:gz"] = "w:gz" if target.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(source) as original, tarfile.open(target, mode) as copy:
        kept: set[int] = set()
        for number, member in _numbered_members(original):
            if number not in dropped:
                kept.add(number)
                copy.addfile(member, original.extractfile(member))
    return len(kept)


def _numbered_members(archive: tarfile.TarFile) -> Iterator[tuple[int, tarfile.TarInfo]]:
    """Yield the files of an archive with the number of their sample."""
    number, last = -1, None
    for member in archive:
        key = sample_key(member)
        if key is not None:
            number, last = number + (key != last), key
            yield number, member
