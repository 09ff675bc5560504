"""A machine, or a limit of the shell, that has too little memory for a model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = """
import resource, sys
import convllava.cli.ask, torch
from convllava.cli.main import main
from convllava.inference.memory import _fields
from pathlib import Path
command = ["ask", sys.argv[3], "What?", "--model", "nano", "--max-new-tokens", "2"]
assert main(command) == 0  # all libraries are loaded before the limit is set
kind, more = getattr(resource, sys.argv[1]), int(sys.argv[2]) << 20
used = _fields(Path("/proc/self/status"))["VmData" if sys.argv[1] == "RLIMIT_DATA" else "VmSize"]
resource.setrlimit(kind, (used + more, used + more))
sys.exit(main(command))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("limit", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_too_little_memory_is_one_line(tmp_path: Path, limit: str) -> None:
    """As under ``ulimit -d`` and ``ulimit -v``: at every limit an answer, or one line that names the memory."""
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64)).save(image)
    codes = []
    for mebibytes in (1, 40, 90, 180, 1500):
        command = [sys.executable, "-c", SCRIPT, limit, str(mebibytes), str(image)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        codes.append(done.returncode)
        if done.returncode == 127:  # the dynamic loader itself ends the process, in one line
            assert "cannot allocate memory" in done.stderr, (mebibytes, done)
            continue
        assert done.returncode in (0, 2), (mebibytes, done)
        if done.returncode == 2:
            # other packages have remarks of their own, when they are imported and when the interpreter ends
            before, _, told = f"\n{done.stderr}".partition("\nerror: ")
            assert told and "Traceback" not in before and "\nerror: " not in told, (mebibytes, done.stderr)
            named = ("memory", "failed to map")  # the second of a library that is not loaded yet
            assert any(words in told.partition("\n")[0] for words in named), (mebibytes, done.stderr)
    assert codes[0] == 2 and codes[-1] == 0
