"""``convllava data import-sroie``: receipts into what training and evaluation read."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .progress import progress_bar


def import_sroie(
    source: Annotated[Path, typer.Argument(help="Folder with SROIE's images, boxes and keys, or a JSONL file.")],
    out: Annotated[Path, typer.Argument(help="Directory to make; it must not exist, or be empty.")],
    train: Annotated[int | None, typer.Option(help="Receipts to train on; all but the test's by default.")] = None,
    test: Annotated[int, typer.Option(help="Receipts kept for the test.")] = 100,
    seed: Annotated[int, typer.Option(help="Chooses the split and the wording of questions.")] = 0,
    page_width: Annotated[int, typer.Option(help="Wider pages are scaled down to it, in pixels.")] = 768,
    line_height: Annotated[int, typer.Option(help="Height of the lines that are cut out, in pixels.")] = 64,
    test_lines: Annotated[int, typer.Option(help="Lines drawn from each receipt of the test.")] = 5,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what cannot be used, and list it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report in JSON.")] = False,
) -> None:
    """Turn receipts (images, boxes, key fields) into LLaVA data and two benchmarks."""
    from ..data.receipts import ImportOptions, import_receipts

    options = ImportOptions(train, test, seed, page_width, line_height, test_lines)
    with progress_bar("importing receipts") as progress:
        report = import_receipts(source, out, options, skip_bad=skip_bad, progress=progress)
    print(json.dumps(report, ensure_ascii=False) if as_json else summary(report, out))


def summary(report: dict[str, Any], out: Path) -> str:
    """Say in a few lines what was written and what was left out."""
    known, tested = report["test_from_companies_in_train"], len(report["test"])
    lines = [f"{len(report['train'])} receipts to train on, {tested} to test with, in {out}"]
    lines += [f"  {count:6d} records in {name}.jsonl" for name, count in report["records"].items()]
    lines += [f"  {known} of the {tested} to test with are from companies that are trained on too"]
    lines += [f"  left out: {own['name']}: {own['message']}" for own in report["skipped"]]
    lines += [f"  left out: {name}: its image is in the test under another name" for name in report["repeated"]]
    return "\n".join(lines)
