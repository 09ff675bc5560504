"""``convllava data``: make, check, measure and convert data."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as opt
from .data_check import check
from .data_convert import convert
from .data_stats import stats
from .progress import progress_bar

app = typer.Typer(no_args_is_help=True, add_completion=False)

_PREVIEW_SAMPLES = 24


@app.callback()
def data() -> None:
    """Make, check, measure and convert data."""


app.command()(check)
app.command()(stats)
app.command()(convert)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Output directory; new or empty.")],
    kind: Annotated[str, typer.Option(help="Kind: lines, blocks, documents, pages, scenes, boxes.")] = "line",
    count: Annotated[int, typer.Option(help="Number of samples.")] = 100,
    seed: Annotated[int, typer.Option(help="Number of the series of samples.")] = 0,
    split: Annotated[str, typer.Option(help="train or heldout; they share no words and no type faces.")] = "train",
    size: Annotated[
        list[str] | None, typer.Option(metavar="HxW", help="Height and width in pixels; repeatable, one is drawn.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the kind, such as noise=0.2; repeatable."),
    ] = None,
    preview: Annotated[Path | None, typer.Option(help="Image file for a sheet of the first samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Draw images with questions and answers, and write them in the LLaVA format."""
    from ..synthetic import SyntheticDataset, preview_sheet, write_dataset

    options = dict(parse_setting(text) for text in setting or [])
    if size:
        options["sizes"] = [parse_size(text) for text in size]
    dataset = SyntheticDataset(kind, count=count, seed=seed, split=split, **options)
    if preview is not None:
        preview_sheet(dataset, _PREVIEW_SAMPLES).save(preview)
    with progress_bar(f"drawing {kind}") as progress:
        written = write_dataset(dataset, out, progress)
    report = {"directory": str(written), "kind": kind, "count": count, "seed": seed, "split": split}
    opt.say(json.dumps(report) if as_json else f"{count} samples ({kind}, {split}, seed {seed}) in {written}")


def parse_size(text: str) -> list[int]:
    """Read ``32x192`` as [height, width]."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise ValueError(f"--size {text!r}: give height and width in pixels, such as 32x192")
    return [int(match[1]), int(match[2])]


def parse_setting(text: str) -> tuple[str, Any]:
    """Read ``noise=0.2`` or ``tasks=[count, color]``: values are YAML, as in a recipe."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"--set {text!r}: give KEY=VALUE, such as noise=0.2")
    import yaml

    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text!r}: the value is not valid YAML ({' '.join(str(error).split())})") from error
