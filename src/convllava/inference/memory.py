"""The memory of the CPU: how much is available, and one error where it does not suffice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..convert import Checkpoint
from ..support import dtype_name

GIB = 1 << 30

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Parts of the messages of torch's allocators, which raise a plain RuntimeError on the CPU."""


def available_memory() -> int | None:
    """Return the bytes that this process can still allocate on the CPU, or None if the system does not tell.

    The least of what the machine has left (swap included), of its control group's limit and of its own limits.
    """
    machine = _fields(Path("/proc/meminfo"))
    process = _fields(Path("/proc/self/status"))
    found = [machine["MemAvailable"] + machine.get("SwapFree", 0)] if "MemAvailable" in machine else []
    found += [most - process[used] for most, used in _own_limits() if used in process]
    found += _left_in_control_group()
    return max(0, min(found)) if found else None


def _own_limits() -> list[tuple[int, str]]:
    """Return this process's limits in bytes, each with the name of what counts towards it."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    limits = ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize"))
    found = [(resource.getrlimit(limit)[0], used) for limit, used in limits]
    return [(most, used) for most, used in found if most != resource.RLIM_INFINITY]


def _fields(path: Path) -> dict[str, int]:
    """Return the sizes in a file of /proc in bytes, by name."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) == 3 and words[2] == "kB"}


def _left_in_control_group() -> list[int]:
    """Return what the control group allows and its processes do not hold; the page cache can be dropped."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text(encoding="utf-8").strip()
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
        return [] if most == "max" else [int(most) - int(stat["anon"])]
    except (OSError, KeyError, ValueError):
        return []


def check_memory(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """Check that a checkpoint's weights fit the memory of the CPU before they are allocated.

    Raises:
        ValueError: They do not fit; names both sizes and the way out.
    """
    numbers = sum(weight.num_elements for weight in checkpoint.weights.values())
    needed, available = numbers * dtype.itemsize, available_memory()
    if available is None or needed <= available:
        return
    smaller = numbers * torch.bfloat16.itemsize
    advice = "pass quantize='int8' (--quantize int8), or take a machine with more memory"
    if dtype.itemsize > torch.bfloat16.itemsize:
        advice = f"pass dtype='bfloat16' (--dtype bfloat16), which needs {smaller / GIB:.1f} GiB"
    raise ValueError(
        f"{checkpoint.folder} needs {needed / GIB:.1f} GiB of memory in {dtype_name(dtype)}, and only "
        f"{available / GIB:.1f} GiB are available: {advice}"
    )


@contextmanager
def one_memory_error(source: object) -> Iterator[None]:
    """Turn an allocator's error inside the block into a ValueError that says what to do.

    Args:
        source: The checkpoint's name for the message.

    Raises:
        ValueError: The memory does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
            raise ValueError(
                f"the memory does not suffice for {source}: pass dtype='bfloat16' (--dtype bfloat16) or "
                "quantize='int8' (--quantize int8), or end other programs"
            ) from error
        raise
