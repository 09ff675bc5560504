"""Shared parts of the benchmarks: options, paired timings, the machine, a table and a JSON file.

The candidates run in turns, round by round, and ratios are medians of the rounds' ratios, so that a slow phase of the
machine affects all candidates alike.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

Run = Callable[[], object]

BUSY = 0.2
"""Share of all cores that other programs may keep busy; above it timings are unreliable."""


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that all benchmarks take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--quick", action="store_true", help="few rounds on small shapes, to check that it runs")
    options.add_argument("--rounds", type=int, help="paired runs (default: 7, with --quick 2)")
    options.add_argument("--threads", type=int, help="threads of torch (default: chosen by torch)")
    options.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    options.add_argument("--out", type=Path, help="JSON file (default: benchmarks/results/NAME.json)")
    return options


def rounds_of(arguments: argparse.Namespace) -> int:
    """Return the number of paired runs."""
    return arguments.rounds or (2 if arguments.quick else 7)


def set_threads(arguments: argparse.Namespace) -> None:
    """Set the number of torch threads, if the option is given."""
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)


@dataclass
class Timings:
    """Times of each candidate in seconds, round by round."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median seconds of a candidate."""
        return median(self.seconds[name])

    def ratio(self, slower: str, faster: str) -> float:
        """Return the time of one candidate divided by another's: the median of the rounds' ratios."""
        return median(a / b for a, b in zip(self.seconds[slower], self.seconds[faster], strict=True))

    def best_of(self, names: Sequence[str]) -> str:
        """Return the fastest of some candidates."""
        return min(names, key=self.median)


def paired(runs: Mapping[str, Run], rounds: int, device: str = "cpu", warm_ups: int = 1) -> Timings:
    """Time all candidates in turns, after warm-up runs."""
    for run in runs.values():
        for _ in range(warm_ups):
            run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(runs)[:: 1 if number % 2 == 0 else -1]  # nobody always comes after the same one
        for name in names:
            found[name].append(seconds(runs[name], device))
    return Timings(found)


def seconds(run: Run, device: str = "cpu") -> float:
    """Return the wall time of one run, with the device synchronized at the end."""
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


@dataclass
class Report:
    """Collects the results of a benchmark, prints them and writes them to a JSON file."""

    name: str
    arguments: argparse.Namespace
    rows: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.machine = machine(self.arguments.device)  # now, before this process keeps it busy itself
        print(f"{self.name}: {describe(self.machine)}", flush=True)

    def add(self, **values: Any) -> None:
        """Add a row and print it at once."""
        self.rows.append(values)
        print("  " + "  ".join(f"{name} {_short(value)}" for name, value in values.items()), flush=True)

    def write(self) -> Path:
        """Write the results atomically."""
        path = self.arguments.out or Path(__file__).parent / "results" / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "benchmark": self.name,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "quick": self.arguments.quick,
            "rounds": rounds_of(self.arguments),
            "machine": self.machine,
            "rows": self.rows,
        }
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
        print(f"wrote {path}")
        return path


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine(device: str) -> dict[str, Any]:
    """Return the facts that a timing depends on: processor, load, threads, versions."""
    import PIL
    import torch
    import transformers

    from convllava.analysis.calibration import device_name

    return {
        "processor": device_name(torch.device("cpu")),
        "device": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": cores_in_use(),
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pillow": PIL.__version__,
        "system": platform.platform(),
    }


def cores_in_use(seconds: float = 1.0) -> float | None:
    """Return the number of cores that other programs keep busy; None where it cannot be measured.

    The load average is not used: it includes the last minutes, such as the benchmark before this one.
    """
    if not os.path.exists("/proc/stat"):
        return None
    before = _processor_time()
    time.sleep(seconds)
    busy, total = (now - then for now, then in zip(_processor_time(), before, strict=True))
    return (os.cpu_count() or 1) * busy / max(1, total)


def _processor_time() -> tuple[int, int]:
    """Return the busy and the total time of all cores."""
    with open("/proc/stat", encoding="ascii") as stream:
        times = [int(word) for word in stream.readline().split()[1:9]]
    idle = times[3] + times[4]
    return sum(times) - idle, sum(times)


def is_busy(facts: Mapping[str, Any]) -> bool:
    """Return whether other programs kept the machine busy."""
    return facts["load"] is not None and facts["load"] > BUSY * facts["cores"]


def describe(facts: Mapping[str, Any]) -> str:
    """Return a line with the machine and its versions, and a warning if the machine is busy."""
    amx = ", AMX" if facts["amx"] else ""
    versions = f"torch {facts['torch']}, transformers {facts['transformers']}, pillow {facts['pillow']}"
    busy = ""
    if is_busy(facts):
        busy = f"; BUSY: {facts['load']:.1f} cores, times are not to be trusted"
    return f"{facts['device']} ({facts['cores']} cores{amx}), {facts['threads']} threads, {versions}{busy}"


def main(name: str, run: Callable[[Report], None], options: argparse.ArgumentParser) -> None:
    """Parse the options, run the benchmark and write its results."""
    arguments = options.parse_args()
    set_threads(arguments)
    report = Report(name, arguments)
    run(report)
    report.write()
    sys.stdout.flush()
