"""Start-up time of `convllava --help` and of `convllava ask` with nano from a warm disk, with a profile of imports.

Goals: help in less than 0.5 s; an answer in less than 6 s on two cores.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Report, main, paired, parser, rounds_of
from PIL import Image

SHOWN = 12
"""Number of imports that the profile lists."""


def convllava(*words: str, python_options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the program in a new process."""
    command = [sys.executable, *python_options, "-m", "convllava.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def slowest_imports(report_of_python: str, number: int = SHOWN) -> list[tuple[str, float]]:
    """Return packages with the import seconds of their modules, the slowest first."""
    own: dict[str, float] = {}
    for match in re.finditer(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", report_of_python):
        parts = match[2].split(".")
        package = ".".join(parts[:2]) if parts[0] in ("torch", "transformers", "convllava") else parts[0]
        own[package] = own.get(package, 0.0) + int(match[1]) / 1e6
    return sorted(own.items(), key=lambda pair: -pair[1])[:number]


def run(report: Report) -> None:
    """Time both and profile the second."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        Image.effect_noise((192, 128), 60).convert("RGB").save(image)
        ask = ("ask", str(image), "What does it say?", "--max-new-tokens", "8", "--device", "cpu")
        runs = {
            "python": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            "help": lambda: convllava("--help"),
            "import torch": lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
            "ask": lambda: convllava(*ask),
        }
        timings = paired(runs, rounds_of(report.arguments))
        for name in runs:
            report.add(what=name, seconds=timings.median(name))
        profile = convllava(*ask, python_options=("-X", "importtime")).stderr
    for package, taken in slowest_imports(profile):
        report.add(imported=package, seconds=taken)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    return parser(__doc__.splitlines()[0])


if __name__ == "__main__":
    main("startup", run, options())
