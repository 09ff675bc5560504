"""The tensors of a checkpoint under this package's names: read from their files, and written one at a time.

Nothing here holds more than one tensor in memory: a weight is loaded from its memory-mapped file when it is asked for,
and the memory of what was read is released every :data:`READ_BEFORE_RELEASE` bytes.
"""

import json
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import torch
from torch import Tensor

from ..support import dtype_name, write_json
from .tensor_files import StoredTensor, shorten

if TYPE_CHECKING:
    from .checkpoint import TensorNames

DEFAULT_SHARD_SIZE = "5GB"

READ_BEFORE_RELEASE = 256 << 20
"""Bytes that are read before the memory of mapped files is released."""

_DTYPE_CODES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""The names of dtypes in a safetensors header."""

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


class TensorSource(Protocol):
    """Stored tensors by name: :class:`WeightFiles`, or :class:`TensorsInMemory`."""

    def __getitem__(self, name: str) -> StoredTensor:
        """Return the name, shape and dtype of a tensor."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        ...

    def load(self, name: str) -> Tensor:
        """Return a tensor on the CPU, in its stored shape."""
        ...

    def release(self) -> None:
        """Release the memory of what was read."""
        ...


class TensorsInMemory(Mapping[str, StoredTensor]):
    """Tensors in memory with the interface of :class:`WeightFiles`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = self._tensors[name]
        return StoredTensor(name, Path("memory"), tuple(tensor.shape), tensor.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def load(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._tensors[name]

    def release(self) -> None:
        """Do nothing: no file is mapped."""


@dataclass(frozen=True)
class Weight:
    """One tensor of a checkpoint.

    Args:
        files: The files that store it.
        stored_name: Its name in these files.
        new_rows: The number of rows to append to it.
        is_pointwise: Whether a convolution kernel (N, C, 1, 1) is stored for what is a matrix (N, C) in this package.
    """

    files: TensorSource
    stored_name: str
    new_rows: int = 0
    is_pointwise: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape after loading, with appended rows."""
        stored = self.files[self.stored_name].shape
        if self.is_pointwise and stored[2:] == (1, 1):
            return stored[:2]
        return (stored[0] + self.new_rows, *stored[1:]) if self.new_rows and stored else stored

    @property
    def dtype(self) -> torch.dtype:
        """Stored dtype."""
        return self.files[self.stored_name].dtype

    @property
    def num_elements(self) -> int:
        """Number of values, with those of appended rows."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size in the stored dtype, with appended rows."""
        return self.num_elements * self.dtype.itemsize

    def load(self) -> Tensor:
        """Return the tensor, memory-mapped where possible; each appended row is the mean of the stored rows."""
        stored = self.files.load(self.stored_name)
        if self.is_pointwise:
            return stored.reshape(self.shape)
        if not self.new_rows:
            return stored
        mean = stored.mean(dim=0, keepdim=True, dtype=torch.float32).to(stored.dtype)
        return torch.cat([stored, mean.expand(self.new_rows, -1)])


class Weights(Mapping[str, Weight]):
    """The tensors of a checkpoint by this package's names."""

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self._weights = dict(weights)
        self._files = {id(weight.files): weight.files for weight in self._weights.values()}

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    @classmethod
    def renamed(cls, files: TensorSource, names: "TensorNames", new_rows: Mapping[str, int] | None = None) -> "Weights":
        """Return the tensors of some files under this package's names.

        Args:
            files: The files.
            names: The mapping from their names to this package's.
            new_rows: The number of rows to append, by this package's names.
        """
        ours = {name: names.ours(name) for name in files}
        rows = new_rows or {}
        return cls({new: Weight(files, old, rows.get(new, 0)) for old, new in ours.items() if new is not None})

    def below(self, prefix: str) -> "Weights":
        """Return the tensors whose names begin with a prefix, under the rest of their names."""
        return Weights({name.removeprefix(prefix): weight for name, weight in self.items() if name.startswith(prefix)})

    def prefixed(self, prefix: str) -> "Weights":
        """Return all tensors with a prefix put before their names."""
        return Weights({prefix + name: weight for name, weight in self.items()})

    def merged(self, other: Mapping[str, Weight]) -> "Weights":
        """Return these tensors and others; the others replace those of the same names."""
        return Weights({**self, **other})

    def release(self) -> None:
        """Release the memory of what was read."""
        for files in self._files.values():
            files.release()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes by name."""
        return {name: weight.shape for name, weight in self.items()}


class ReadBudget:
    """A count of bytes that were read from mapped files, which are released at every :data:`READ_BEFORE_RELEASE`."""

    def __init__(self) -> None:
        self._read = 0

    def add(self, num_bytes: int, *sources: "TensorSource | Weights") -> None:
        """Count bytes that were read; release the sources if that makes the budget full."""
        self._read += num_bytes
        if self._read > READ_BEFORE_RELEASE:
            for source in sources:
                source.release()
            self._read = 0


def tensor_faults(
    expected: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, Weight],
    stored_name: Callable[[str], str] = str,
    *,
    may_be_missing: Collection[str] = (),
) -> list[str]:
    """Compare stored tensors with those that a model has.

    Args:
        expected: The model's shapes by name.
        weights: The stored tensors, under the model's names.
        stored_name: Function from a name of the model to its name in the files, for tensors that are missing there.
        may_be_missing: Names of tied tensors.

    Returns:
        One phrase for each kind of fault (missing, surplus, misshapen, not floating point); none if all agree.
    """
    found = {
        "missing": [stored_name(name) for name in set(expected) - set(weights) - set(may_be_missing)],
        "surplus": [weights[name].stored_name for name in set(weights) - set(expected)],
        "misshapen": [
            f"{weights[name].stored_name} is {list(weights[name].shape)}, expected {list(shape)}"
            for name, shape in expected.items()
            if name in weights and weights[name].shape != shape
        ],
        "not floating point": [
            f"{weight.stored_name} is {dtype_name(weight.dtype)}"
            for name, weight in weights.items()
            if name in expected and not weight.dtype.is_floating_point
        ],
    }
    return list_faults(found)


def list_faults(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return "2 missing: a, b" for every kind of fault that occurs."""
    return [f"{len(names)} {fault}: {shorten(sorted(names))}" for fault, names in found.items() if names]


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of a file to be written.

    Args:
        name: Its name in the file.
        weight: The tensor to read.
        dtype: Its dtype in the file.
        num_rows: How many of its first rows are written; None writes all.
    """

    name: str
    weight: Weight
    dtype: torch.dtype
    num_rows: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the file."""
        return self.weight.shape if self.num_rows is None else (self.num_rows, *self.weight.shape[1:])

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return prod(self.shape) * self.dtype.itemsize

    def load(self) -> Tensor:
        """Return the tensor as it is written.

        Raises:
            ValueError: The tensor holds NaN or infinity, or its values are too large for the dtype.
        """
        stored = self.weight.load()[: self.num_rows] if self.num_rows is not None else self.weight.load()
        tensor = stored.to(self.dtype)
        # the sum is one fast pass; only a non-finite sum needs the second, exact look
        if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
            if bool(stored.isfinite().all()):
                largest = float(stored.abs().max())
                raise ValueError(f"{self.name} has values too large for {dtype_name(self.dtype)} ({largest:.3g})")
            raise ValueError(f"{self.name} holds NaN or infinity; the checkpoint is damaged or its training diverged")
        return tensor


def parse_size(text: str) -> int:
    """Return the bytes of a size such as "5GB" or "512MiB".

    Raises:
        ValueError: The text is not a size, or the size is below one byte.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B)?", text.strip().upper())
    size = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if size < 1:
        raise ValueError(f"size {text!r} is not understood: write 5GB, 512MiB or a number of bytes")
    return size


def write_weights(folder: Path, tensors: Sequence[OutputTensor], max_shard_size: int) -> None:
    """Write tensors as ``model.safetensors``, or as several shards with an index if they exceed one shard.

    Args:
        folder: The directory to write into.
        tensors: The tensors, in the order in which shards are filled.
        max_shard_size: Bytes of one shard; a single larger tensor gets a shard of its own.

    Raises:
        ValueError: A tensor holds NaN or infinity, or its values are too large for the dtype.
        OSError: Writing failed.
    """
    shards = list(_shards(tensors, max_shard_size))
    if len(shards) == 1:
        _write_file(folder / "model.safetensors", shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / name, shard)
        weight_map |= {tensor.name: name for tensor in shard}
    metadata = {"total_size": sum(tensor.num_bytes for tensor in tensors)}
    write_json(folder / "model.safetensors.index.json", {"metadata": metadata, "weight_map": weight_map})


def _shards(tensors: Sequence[OutputTensor], max_shard_size: int) -> Iterator[list[OutputTensor]]:
    shard: list[OutputTensor] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.num_bytes > max_shard_size:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.num_bytes
    if shard:
        yield shard


def _write_file(path: Path, tensors: Sequence[OutputTensor]) -> None:
    # the largest elements first: every tensor then begins at a multiple of its element's size
    ordered = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))
    budget = ReadBudget()
    with path.open("wb") as file:
        _write_header(file, ordered)
        for tensor in ordered:
            data = tensor.load().contiguous().reshape(-1)
            file.write(data.view(torch.uint8).numpy().data)
            del data
            budget.add(tensor.weight.num_bytes, tensor.weight.files)


def _write_header(file: BinaryIO, tensors: Sequence[OutputTensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.num_bytes
        code = _DTYPE_CODES[tensor.dtype]
        header[tensor.name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
