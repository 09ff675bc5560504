"""Weight files of untrusted origin, read lazily: safetensors and PyTorch's own format.

Both formats are mapped into memory: a tensor costs nothing until its values are read, and ``release`` frees the memory
again. Pickles are read with ``weights_only=True``, which runs no code.
"""

import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..support import first_line, read_json

MAX_HEADER_BYTES = 16 << 20
"""Largest accepted safetensors header: a real one needs some 100 bytes a tensor, a forged one exhausts the memory."""

STEMS = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files in the order of preference; the index of sharded weights adds ``.index.json``."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """Name, shape and dtype of one tensor of a file.

    Args:
        name: Its name in the file.
        path: The file.
        shape: Its stored shape.
        dtype: Its stored dtype.
    """

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return prod(self.shape) * self.dtype.itemsize


class _Reader(Protocol):
    def tensors(self) -> Iterator[StoredTensor]: ...

    def load(self, name: str) -> Tensor: ...


class WeightFiles(Mapping[str, StoredTensor]):
    """The tensors of several files by name; names, shapes and dtypes are read from the headers alone.

    Args:
        paths: The files; a name may occur in one of them only.

    Raises:
        ValueError: A file is damaged, or two files hold a tensor of the same name.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._readers: dict[Path, _Reader] = {}
        self._tensors: dict[str, StoredTensor] = {}
        for path in paths:
            for tensor in self._reader(path).tensors():
                if tensor.name in self._tensors:
                    raise ValueError(f"{tensor.name} is in {self._tensors[tensor.name].path} and again in {path}")
                self._tensors[tensor.name] = tensor

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def load(self, name: str) -> Tensor:
        """Return a tensor on the CPU in its stored shape, memory-mapped and therefore not to be written into."""
        return self._reader(self._tensors[name].path).load(name)

    def release(self) -> None:
        """Release the memory of what was read; tensors that are still referenced keep theirs."""
        self._readers.clear()

    def _reader(self, path: Path) -> _Reader:
        if path not in self._readers:
            self._readers[path] = _SafetensorsReader(path) if path.suffix == ".safetensors" else _PickleReader(path)
        return self._readers[path]


def open_weights(folder: Path) -> WeightFiles:
    """Open the weights of a checkpoint directory: safetensors or PyTorch files, a single file or shards with an index.

    Raises:
        ValueError: No weights are found, a file is missing or damaged, or the index and the files disagree.
    """
    for stem in STEMS:
        index = folder / f"{stem}.index.json"
        if index.is_file():
            return _open_shards(index)
        if (folder / stem).is_file():
            return WeightFiles([folder / stem])
    raise ValueError(f"{folder} has no weights: {' or '.join(STEMS)} is missing; copy or download it again")


def _open_shards(index: Path) -> WeightFiles:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} has no weight_map: copy or download it again")
    names = sorted(set(places.values()))
    for name in names:
        # an untrusted index could point outside its directory
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ValueError(f"{index.parent} has no weights: {name} is missing; copy or download it again")
    files = WeightFiles([index.parent / name for name in names])
    _check_index(index, places, files)
    return files


def _check_index(index: Path, places: dict[str, str], files: WeightFiles) -> None:
    omitted = sorted(set(files) - set(places))
    absent = sorted(name for name, shard in places.items() if name not in files or files[name].path.name != shard)
    for fault, names in (("omits tensors of its files", omitted), ("places tensors where they are not", absent)):
        if names:
            raise ValueError(f"{index} {fault}: {shorten(names)}; copy or download it and its shards again")


def shorten(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names of a list, and the number of the others: "a, b and 3 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


class _SafetensorsReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        _check_header_size(path)
        try:
            self._file = safe_open(path, framework="pt")  # compares the header with the file's size
        except SafetensorError as error:
            raise ValueError(
                f"{path} is not a complete safetensors file ({error}): copy or download it again"
            ) from error

    def tensors(self) -> Iterator[StoredTensor]:
        for name in self._file.keys():  # noqa: SIM118 (not a mapping)
            entry = self._file.get_slice(name)
            dtype = _DTYPES.get(entry.get_dtype())
            if dtype is None:
                raise ValueError(f"{self._path}: {name} has the dtype {entry.get_dtype()}, which is not supported")
            yield StoredTensor(name, self._path, tuple(entry.get_shape()), dtype)

    def load(self, name: str) -> Tensor:
        return self._file.get_tensor(name)


def _check_header_size(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    rest = path.stat().st_size - 8
    if size > min(MAX_HEADER_BYTES, max(rest, 0)):
        raise ValueError(
            f"{path} is not a complete safetensors file (it claims a header of {size} bytes, {max(rest, 0)} follow and "
            f"{MAX_HEADER_BYTES} are allowed): copy or download it again"
        )


class _PickleReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors = _flat_tensors(_unpickle(path), path)

    def tensors(self) -> Iterator[StoredTensor]:
        for name, tensor in self._tensors.items():
            yield StoredTensor(name, self._path, tuple(tensor.shape), tensor.dtype)

    def load(self, name: str) -> Tensor:
        return self._tensors[name]


def _unpickle(path: Path) -> Any:
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"  # PyTorch's format since 1.6; older files cannot be mapped
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        reason = _refused_global(str(error))
        raise ValueError(
            f"{path} is refused: it holds more than tensors{reason}, and such a file can run code on this machine; "
            "ask for safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a complete PyTorch file ({first_line(error)}): copy or download it again"
        ) from error


def _refused_global(message: str) -> str:
    """Return the name that PyTorch refused to unpickle, picked from its long message."""
    lines = [line.strip() for line in message.splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return f" ({lines[0][:120]})" if lines else ""


def _flat_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # the form of OpenCLIP's training checkpoints
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__} where tensors by name are expected")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} holds entries that are not tensors: {shorten(others)}")
    return {str(name): tensor.detach() for name, tensor in content.items()}
