"""``convllava data convert``: write data in the format of another program."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .data_check import Format, ImageFolder
from .options import printable, say
from .progress import progress_bar

if TYPE_CHECKING:
    from ..data.conversion import Converted


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A data file, a folder or shards, of any format.")],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="A .json, .jsonl or .parquet file, or a folder for tars.")
    ],
    to: Annotated[str, typer.Option(help="llava, openai, parquet or webdataset.")],
    image_folder: ImageFolder = None,
    format: Format = None,
    embed: Annotated[bool, typer.Option(help="Hold the images in OpenAI messages as data URLs.")] = False,
    on_bad_sample: Annotated[
        str, typer.Option(help="stop at a record that cannot be used, or skip it and say why.")
    ] = "stop",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Convert data to another format; it reads back as the same samples, and image files keep their bytes."""
    from ..data.conversion import convert as run
    from ..data.files import open_file
    from ..data.sharded import is_sharded

    if on_bad_sample not in ("stop", "skip"):
        raise ValueError(f"--on-bad-sample must be stop or skip, got {on_bad_sample!r}")
    opened = open_file(
        source,
        image_folder,
        streaming=is_sharded(source),
        on_bad_sample=on_bad_sample,  # type: ignore[arg-type]
        format=format,
    )
    with progress_bar(f"writing {to}") as progress:
        result = run(opened, target, to, embed=embed, on_bad_sample=on_bad_sample, progress=progress)  # type: ignore[arg-type]
    title = getattr(opened.format, "title", "tars")
    if as_json:
        left_out = [vars(fault) for fault in result.faults]
        say(json.dumps({"from": title, "to": to, **_plain(result), "left_out": left_out}))
    else:
        _print(result, title, to)


def _plain(result: "Converted") -> dict[str, object]:
    folder = None if result.image_folder is None else str(result.image_folder)
    return {
        "path": str(result.path),
        "image_folder": folder,
        "records": result.records,
        "images": result.images,
    }


def _print(result: "Converted", title: str, to: str) -> None:
    for fault in result.faults:
        say(printable(f"left out: {fault}"))
    copied = "" if result.image_folder is None else f", images copied to {result.image_folder}"
    say(printable(f"{result.path}: {result.records:,} records and {result.images:,} images, {title} to {to}{copied}"))
