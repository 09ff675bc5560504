"""Freed memory goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import os
from pathlib import Path
import convllava.serve.memory as memory

memory.SECONDS_BETWEEN = 0.0

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

blocks = [bytearray(100_000) for _ in range(3000)]  # too small to be mapped one by one
for block in blocks:
    block[::4096] = b"x" * len(block[::4096])
kept = blocks[::10]
del blocks, block
before = resident()
memory.Holes().give_back_now_and_then()
print(before - resident())
"""


def test_holes_between_what_is_kept_go_back_to_the_system() -> None:
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library keeps no holes that one could ask for")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 150  # MiB of the 257 that were freed
