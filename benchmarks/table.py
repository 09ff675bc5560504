"""Write the results of the benchmarks into RESULTS.md.

Reads every JSON file in benchmarks/results and replaces the text between the two marks of benchmarks/RESULTS.md.
Results of --quick and of a busy machine are left out unless --all is given, which marks them.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from common import is_busy

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by benchmarks/table.py -->", "<!-- end of results -->"


def is_trusted(result: dict[str, Any]) -> bool:
    """Return whether a result is from a full run on an idle machine."""
    return not result["quick"] and not is_busy(result["machine"])


def section(result: dict[str, Any]) -> str:
    """Return the heading, the machine and the tables of one benchmark."""
    machine = result["machine"]
    amx = " with AMX" if machine["amx"] else ""
    where = (
        f"{result['date']}, {machine['device']}{amx}, {machine['cores']} cores, {machine['threads']} threads, "
        f"torch {machine['torch']}, transformers {machine['transformers']}, medians of {result['rounds']} rounds"
    )
    doubts = [word for word, holds in (("--quick", result["quick"]), ("busy machine", is_busy(machine))) if holds]
    if doubts:
        where += f" (**{', '.join(doubts)}: not to be trusted**)"
    tables = [table(list(rows)) for _, rows in groupby(result["rows"], key=lambda row: tuple(row))]
    return "\n\n".join([f"### {result['benchmark']}.py", where, *tables])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows with the same names as a table; a column without a value is left out."""
    names = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    lines = [[name.replace("_", " ") for name in names], ["---"] * len(names)]
    lines += [[short(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def short(value: Any) -> str:
    """Return a number with three significant digits, any other value unchanged."""
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def results(folder: Path, everything: bool) -> Iterator[dict[str, Any]]:
    """Yield the results of the benchmarks, by name."""
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if everything or is_trusted(result):
            yield result
        else:
            print(f"left out, quick or on a busy machine: {path}")


def replaced(text: str, found: Sequence[dict[str, Any]]) -> str:
    """Return a page with new results between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}")
    return "\n\n".join([before + BEGIN, *map(section, found), END + after])


def main() -> None:
    """Read the results and write the page."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--results", type=Path, default=HERE / "results", help="folder of JSON files")
    options.add_argument("--page", type=Path, default=HERE / "RESULTS.md")
    options.add_argument("--all", action="store_true", help="include quick runs and those on a busy machine")
    arguments = options.parse_args()
    found = list(results(arguments.results, arguments.all))
    arguments.page.write_text(replaced(arguments.page.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(f"{len(found)} results in {arguments.page}")


if __name__ == "__main__":
    main()
