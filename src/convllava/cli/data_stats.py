"""``convllava data stats``: shapes and sizes of images, and their visual tokens under each policy."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .data_check import Format, ForModel, ImageFolder, Overrides
from .data_opening import check_input, open_for_reading
from .progress import progress_bar
from .tables import Column, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from ..data.samples import NamedSource
    from ..data.stats import PolicyTokens, Statistics
    from ..model import ConvLlavaConfig


def stats(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|FOLDER|SHARDS|RECIPE", help="The same as for 'data check'; a recipe means all its sources."
        ),
    ],
    overrides: Overrides = None,
    image_folder: ImageFolder = None,
    format: Format = None,
    model: ForModel = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots (PNG), a page with them and stats.json.")] = None,
    resolution: Annotated[
        list[int] | None, typer.Option(help="Resolution to compare; repeatable. Default: 768, 1024, 1536.")
    ] = None,
    budget: Annotated[list[int] | None, typer.Option(help="Visual token budget to compare; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Read the headers of all images and count their visual tokens; nothing is decoded."""
    check_input(what, model)

    from ..data.stats import as_json as figures
    from ..data.stats import tokens_by_policy
    from ..data.stats_plots import write_plots

    opened = open_for_reading(
        what, overrides or [], image_folder=image_folder, model=model, max_length=None, format=format
    )
    statistics = _measure(opened.sources)
    by_policy = tokens_by_policy(statistics, _policies(opened.config, resolution, budget))
    found = figures(statistics, by_policy)
    written = [] if out is None else write_plots(out, statistics, by_policy, what)
    if out is not None:
        (out / "stats.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        opt.say(json.dumps(found))
    else:
        _print(statistics, by_policy, found)
        opt.say("".join(f"wrote {path}\n" for path in written), end="")


def _measure(sources: "list[NamedSource]") -> "Statistics":
    from itertools import chain

    from ..data.stats import measure

    counts = [named.source.num_records() for named in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    with progress_bar("reading headers") as progress:
        entries = chain.from_iterable(named.source.records() for named in sources)
        return measure(entries, jobs=4 * (os.cpu_count() or 1), progress=lambda done: progress(done, total))


def _policies(
    config: "ConvLlavaConfig", resolutions: list[int] | None, budgets: list[int] | None
) -> dict[str, Callable[..., int]]:
    from ..analysis.policies import BUDGETS, RESOLUTIONS, Policy, policies, tokens_of

    def counter(policy: Policy) -> Callable[[int, int], int]:
        return lambda height, width: tokens_of(policy.shape(height, width, config), config)

    return {policy.name: counter(policy) for policy in policies(config, resolutions or RESOLUTIONS, budgets or BUDGETS)}


def _print(statistics: "Statistics", by_policy: "list[PolicyTokens]", found: dict[str, Any]) -> None:
    from .data_report import report_console

    console = report_console()
    console.print(
        f"{statistics.samples:,} samples ({statistics.text_only:,} without images), {statistics.images:,} images in "
        f"{len(statistics.sizes):,} sizes"
    )
    if statistics.unreadable:
        console.print(f"{statistics.unreadable:,} records cannot be read; 'data check' lists them", style="yellow")
    rows = {
        "width : height": ("aspect_ratio", "{:.2f}"),
        "width": ("width", "{:,.0f}"),
        "height": ("height", "{:,.0f}"),
        "megapixels": ("megapixels", "{:.2f}"),
        "characters per sample": ("text_characters", "{:,.0f}"),
    }
    shapes = {name: (found[key], form) for name, (key, form) in rows.items()}
    _print_quantiles(console, "Shapes and lengths", "", shapes)
    tokens = {policy.name: (found["visual_tokens"][policy.name], "{:,.0f}") for policy in by_policy}
    _print_quantiles(console, "Visual tokens per image", "policy", tokens)
    refused = [policy for policy in by_policy if policy.refused]
    for policy in refused:
        console.print(f"shape not supported by '{policy.name}': {policy.refused:,}", style="yellow")


def _print_quantiles(console: "Console", title: str, head: str, rows: dict[str, tuple[dict[str, float], str]]) -> None:
    ranks = {"min": 0, "5%": 4, "25%": 1, "50%": 0, "75%": 2, "95%": 3, "max": 0, "mean": 0}
    columns = [Column(head, words=True), *(Column(key.replace("%", " %"), rank=rank) for key, rank in ranks.items())]
    cells = [
        [name, *(form.format(numbers[key]) if key in numbers else "" for key in ranks)]
        for name, (numbers, form) in rows.items()
    ]
    print_table(console, title, columns, cells)
