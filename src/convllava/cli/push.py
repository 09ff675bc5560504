"""``convllava push``: publish a checkpoint on the hub."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..convert.publish import Publication


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A checkpoint directory, or that of an adapter.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Hub id, OWNER/NAME; made if it is missing.")],
    license: Annotated[str | None, typer.Option(help="License, such as apache-2.0; the card's by default.")] = None,
    license_name: Annotated[str | None, typer.Option(help="Name of the license, with --license other.")] = None,
    license_link: Annotated[str | None, typer.Option(help="Address of the license, with --license other.")] = None,
    base_model: Annotated[
        list[str] | None, typer.Option(help="Hub id of a model that it was trained from; repeatable.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Hub id of training data; repeatable.")] = None,
    private: Annotated[bool, typer.Option(help="Make a missing repository private.")] = False,
    dry_run: Annotated[bool, typer.Option(help="List what would be uploaded; needs no network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Upload a checkpoint with a model card: safetensors, configurations, processor and recipe."""
    opt.check_exists(folder, "DIR")
    from ..convert.publish import CardFields, prepare_publication, publish

    fields = CardFields(license, license_name, license_link, base_model or (), dataset or ())
    publication = prepare_publication(folder, repo, fields)
    if not as_json:
        _print(publication)
    url = None if dry_run else publish(publication, private=private)
    if as_json:
        names = ("repo", "files", "left_out", "num_bytes", "card", "warnings")
        opt.say(json.dumps({name: getattr(publication, name) for name in names} | {"url": url}))
    else:
        opt.say("nothing was uploaded (--dry-run)" if url is None else url)


def _print(publication: "Publication") -> None:
    for name in publication.files:
        opt.say(f"{(publication.folder / name).stat().st_size / 2**20:10.2f} MiB  {name}")
    opt.say(f"{len(publication.card.encode()) / 2**20:10.2f} MiB  README.md")
    opt.say(f"{publication.num_bytes / 2**20:10.2f} MiB  to {publication.repo}")
    if publication.left_out:
        opt.say(f"left out: {', '.join(publication.left_out)}")
    opt.say(publication.card.split("---")[1].strip())
    for warning in publication.warnings:
        opt.remark(f"warning: {warning}")
