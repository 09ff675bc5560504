"""``convllava verify``: whether two checkpoints are the same model."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..convert import Comparison, TensorDifference

DIFFERENT = 1
"""Exit code if the two differ, as that of ``diff``."""

MAX_SHOWN = 10
"""Number of differing tensors that are printed."""


def verify(
    first: Annotated[str, typer.Argument(metavar="A", help="A checkpoint directory, a hub id or nano.")],
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another checkpoint, in the same layout or in another.")
    ] = None,
    vision_tower: Annotated[
        str | None, typer.Option(help="In place of B, with --language-model: the encoder that A was joined from.")
    ] = None,
    language_model: Annotated[
        str | None, typer.Option(help="In place of B, with --vision-tower: the language model that A was joined from.")
    ] = None,
    resolution: opt.Resolution = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of a value that still counts as the same.")
    ] = 0.0,
    logits: Annotated[bool, typer.Option(help="Compare the logits for a probe too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two checkpoints: tensors, then the logits for a probe (float32). Exit code 1 if they differ."""
    for source in (first, second, language_model):
        if source is not None:
            opt.check_model(source)
    if vision_tower is not None:
        opt.check_model(vision_tower, encoder_alone=True)
    if second is not None and not (vision_tower or language_model):
        comparison = compare(first, second, resolution, tolerance, logits=logits)
    elif second is None and vision_tower and language_model:
        comparison = compare_with_parts(first, vision_tower, language_model, resolution, tolerance, logits=logits)
    else:
        raise ValueError("give either a second checkpoint, or both --vision-tower and --language-model")
    opt.say(json.dumps(comparison.as_dict()) if as_json else "\n".join(lines(comparison)))
    if not comparison.same:
        raise typer.Exit(DIFFERENT)


def compare(first: str, second: str, resolution: int | None, tolerance: float, *, logits: bool) -> "Comparison":
    """Compare two checkpoints."""
    from ..convert import compare_logits, compare_tensors, open_checkpoint
    from ..inference import load_pretrained
    from ..inference.checkpoint_files import hub_id, locate

    sources = (first, second)
    opened = [
        open_checkpoint(locate(source), resolution=resolution, hub_id=hub_id(source), needs_resolution=False)
        for source in sources
    ]
    comparison = compare_tensors(opened[0], opened[1], tolerance)
    if not logits:
        return comparison
    loaded = [load_pretrained(source, dtype="float32", resolution=resolution) for source in sources]
    return replace(comparison, logits=compare_logits(loaded[0], loaded[1]))


def compare_with_parts(
    joined: str, vision_tower: str, language_model: str, resolution: int | None, tolerance: float, *, logits: bool
) -> "Comparison":
    """Compare a checkpoint with the encoder and the language model that it was joined from; the projector is left out.

    Logits are those for text alone, compared with the language model's as transformers runs it.
    """
    from ..convert import (
        JoinSettings,
        compare_tensors,
        compare_text_logits,
        has_vision_and_language,
        open_checkpoint,
        open_parts,
    )
    from ..inference import load_pretrained
    from ..inference.checkpoint_files import hub_id, locate
    from ..model.modeling_convllava import PROJECTOR_PREFIX
    from .join import locate_encoder

    checkpoint = open_checkpoint(locate(joined), resolution=resolution, hub_id=hub_id(joined))
    config, folder = checkpoint.config, locate(language_model)
    settings = JoinSettings(config.resolution, config.image_aspect_ratio, config.prompt_format)
    parts = open_parts(locate_encoder(vision_tower), folder, settings)
    comparison = compare_tensors(checkpoint, parts, tolerance, ignore_prefix=PROJECTOR_PREFIX)
    if not logits or has_vision_and_language(folder):
        return comparison
    loaded = load_pretrained(joined, dtype="float32", resolution=resolution)
    return replace(comparison, logits=compare_text_logits(loaded, folder))


def lines(comparison: "Comparison") -> list[str]:
    """Return the printed lines."""
    shown = [describe(difference) for difference in comparison.differences[:MAX_SHOWN]]
    if len(comparison.differences) > MAX_SHOWN:
        shown.append(f"... and {len(comparison.differences) - MAX_SHOWN} more tensors")
    if comparison.same:
        shown.append(f"same: all {comparison.num_tensors} tensors")
    if (logits := comparison.logits) is not None:
        probe, position, token = logits.at
        shown.append(
            f"logits: largest difference {logits.largest:.3g} ({logits.relative:.3g} of the largest logit) in "
            f"probe {probe + 1}, position {position}, token {token}; the same choice at "
            f"{logits.same_choice:.1%} of positions"
        )
    return shown


def describe(difference: "TensorDifference") -> str:
    """Return one line about one tensor."""
    if difference.at is not None:
        place = f"{list(difference.at)} ({difference.detail})"
        return f"{difference.name}: differs by {difference.largest:.3g} at {place}"
    detail = f": {difference.detail}" if difference.detail else ""
    return f"{difference.name}: {difference.reason}{detail}"
