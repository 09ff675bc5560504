"""Convert receipts (images, boxes, key fields) to LLaVA data for training and two benchmark files.

python examples/receipts/import_sroie.py SOURCE OUT --train 400 --validation 10 --test 100
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress
from sroie import ConversionOptions, convert_receipts


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    default = ConversionOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with SROIE's images, boxes and keys, or a JSONL file")
    parser.add_argument("out", type=Path, help="output directory, new or empty")
    parser.add_argument("--train", type=int, help="training receipts; default: all that the test leaves")
    parser.add_argument("--test", type=int, default=default.test, help="test receipts; default: %(default)s")
    parser.add_argument("--validation", type=int, default=0, help="receipts held out of training; default: 0")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the split and of the questions")
    parser.add_argument("--page-width", type=int, default=default.page_width, help="maximum width of pages in pixels")
    parser.add_argument("--line-height", type=int, default=default.line_height, help="height of lines in pixels")
    parser.add_argument("--test-lines", type=int, default=default.test_lines, help="lines of each test receipt")
    parser.add_argument("--skip-bad", action="store_true", help="leave out receipts that cannot be used, and list them")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(arguments)


def summary(report: dict[str, Any], out: Path) -> str:
    """Return a few lines on what was written and what was left out."""
    known, test = report["test_from_companies_in_train"], len(report["test"])
    held_out = f", {len(report['validation'])} for validation" if report["validation"] else ""
    lines = [f"{len(report['train'])} training receipts{held_out} and {test} test receipts in {out}"]
    lines += [f"  {count:6d} records in {name}.jsonl" for name, count in report["records"].items()]
    lines += [f"  {known} of the {test} test receipts are from companies that also occur in training"]
    lines += [f"  left out: {problem['name']}: {problem['message']}" for problem in report["skipped"]]
    lines += [f"  left out: {name}: its image is in the test under another name" for name in report["repeated"]]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the conversion and return the exit code."""
    given = parse(arguments)
    try:
        options = ConversionOptions(
            given.train,
            given.test,
            given.seed,
            given.page_width,
            given.line_height,
            given.test_lines,
            given.validation,
        )
        with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("receipts")
            report = convert_receipts(
                given.source,
                given.out,
                options,
                skip_bad=given.skip_bad,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, ensure_ascii=False) if given.json else summary(report, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
