"""``convllava data check``: check every record and image before training."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt
from .data_opening import Opened, check_input, open_for_reading
from .progress import progress_bar

if TYPE_CHECKING:
    from ..data.check import CleanCopy, Inspector, Report

FOUND_ERRORS = 1

What = Annotated[
    str,
    typer.Argument(
        metavar="FILE|FOLDER|SHARDS|RECIPE", help="JSON, JSONL, CSV, TSV, images, parquet or tar shards, or a recipe."
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values of the recipe to change.")
]
ImageFolder = Annotated[Path | None, typer.Option(help="Folder of the images of FILE; FILE's folder by default.")]
Format = Annotated[str | None, typer.Option("--format", help="Format of the records of FILE; recognized by default.")]
ForModel = Annotated[
    str | None, typer.Option("--model", help="Model that tokenizes and sizes images; the recipe's, else nano.")
]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Maximum tokens of a sample; the recipe's, else 2048.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Number of processes; one per core by default.")]


def check(
    what: What,
    overrides: Overrides = None,
    image_folder: ImageFolder = None,
    format: Format = None,
    model: ForModel = None,
    max_length: MaxLength = None,
    jobs: Jobs = None,
    preview: Annotated[
        int, typer.Option(min=0, help="Number of samples of each source to show, supervised text colored.")
    ] = 0,
    report: Annotated[Path | None, typer.Option(help="JSON file for all findings.")] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Write a copy of FILE without unusable records; a folder for shards.")
    ] = None,
    large_pixels: Annotated[
        int, typer.Option(min=1, help="Maximum pixels of an image; larger ones are reported.")
    ] = 50_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Decode every image, read every dialogue and count every token; exit code 1 if there are errors."""
    check_input(what, model)

    from ..data.check import Inspector, Limits
    from ..data.check import check as run
    from .data_report import print_report

    opened = open_for_reading(
        what, overrides or [], image_folder=image_folder, model=model, max_length=max_length, format=format
    )
    _check_targets(what, opened, report, clean)
    inspector = Inspector(opened.processor, Limits(opened.max_length, large_pixels, opened.one_image), preview)
    with progress_bar("checking") as progress:
        found = run(opened.sources, inspector, jobs=_processes(jobs), progress=progress)
    cleaned = None if clean is None else _write_clean(opened, found, clean, inspector)
    if report is not None:
        report.write_text(json.dumps(found.as_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if as_json:
        opt.say(json.dumps(found.as_json()))
    else:
        print_report(found, cleaned, image_folder)
    if found.errors:
        raise typer.Exit(FOUND_ERRORS)


def _processes(jobs: int | None) -> int:
    wanted = jobs if jobs is not None else os.cpu_count() or 1
    return 0 if wanted == 1 else wanted


def _check_targets(what: str, opened: Opened, report: Path | None, clean: Path | None) -> None:
    """Raise ValueError before the work for a report or copy that could not be written after it."""
    if report is not None and not report.parent.is_dir():
        raise ValueError(f"--report {report}: the folder {report.parent} does not exist")
    if clean is not None and (len(opened.sources) > 1 or opened.sources[0].drawn is not None):
        raise ValueError(f"--clean copies one data set: give its file instead of {what}")
    if clean is not None and clean.exists():
        raise ValueError(f"--clean {clean} exists already; give a new path")


def _write_clean(opened: Opened, found: "Report", target: Path, inspector: "Inspector") -> "CleanCopy":
    from ..data.check import write_clean_copy
    from ..data.conversations import ConversationDataset
    from ..data.sharded import ShardedDataset

    source = opened.sources[0].source
    if not isinstance(source, ConversationDataset | ShardedDataset):
        raise ValueError(f"--clean copies a data file or shards, not {opened.sources[0].name}")
    return write_clean_copy(source, found.faults, target, inspector)
