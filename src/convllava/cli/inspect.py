"""``convllava inspect``: a description of a checkpoint."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as opt


def inspect(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint or encoder, a hub id or nano.")],
    resolution: opt.Resolution = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Describe a checkpoint, and list everything suspicious about its tensors."""
    opt.check_model(checkpoint, encoder_alone=True)

    from ..convert import inspect_checkpoint, inspect_encoder, is_encoder
    from ..inference.checkpoint_files import hub_id, locate

    folder = Path(checkpoint) if Path(checkpoint).is_file() else locate(checkpoint)
    if not is_encoder(folder):
        report = inspect_checkpoint(folder, resolution=resolution, hub_id=hub_id(checkpoint))
    elif resolution is None:
        report = inspect_encoder(folder)
    else:
        raise ValueError(f"{checkpoint} is a vision encoder alone, which has no resolution: leave out --resolution")
    if as_json:
        opt.say(json.dumps(report))
        return
    show(report)


def show(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows(report):
        table.add_row(Text(name, style="bold"), Text(opt.printable(value)))
    for finding in report["findings"]:
        table.add_row(Text("finding", style="bold yellow"), Text(opt.printable(finding)))
    opt.console().print(table)
    if not report["findings"]:
        opt.say("nothing suspicious found")


def rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values of the table."""
    encoder = ("vision encoder", describe_vision(report["vision_encoder"]))
    stored = ("stored", f"{report['tensors']} tensors, {gibibytes(report['bytes'])}, {pairs(report['dtypes'])}")
    if "language_model" not in report:
        norm = "in the files, not used: the features are those before it" if report["has_final_norm"] else "none"
        return [
            ("checkpoint", report["path"]),
            ("layout", report["layout"]),
            encoder,
            ("final norm", norm),
            ("license", report["license"] or "not stated in the files: look it up before you use the weights"),
            stored,
        ]
    language, tokenizer = report["language_model"], report["tokenizer"]
    return [
        ("checkpoint", report["path"]),
        ("layout", report["layout"]),
        ("training stage", report["training_stage"] or "not stored"),
        encoder,
        ("projector", f"{report['projector']['type']}, {millions(report['projector']['parameters'])}"),
        (
            "language model",
            f"{language['model_type']}, {language['num_hidden_layers']} layers, width {language['hidden_size']}, "
            f"{language['vocab_size']} tokens, context {language['max_position_embeddings']}, "
            f"{'tied head, ' * language['tie_word_embeddings']}{millions(language['parameters'])}",
        ),
        ("tokenizer", f"{tokenizer['type']}, {tokenizer['tokens']} tokens, <image> is {tokenizer['image_token_id']}"),
        ("prompt format", report["prompt_format"]),
        ("images", describe_images(report)),
        ("visual tokens", pairs(report["visual_tokens"])),
        stored,
        ("memory of weights", pairs({name: gibibytes(size) for name, size in report["weight_bytes"].items()})),
        ("memory of context", f"{(report['kv_cache_bytes_per_token'] or 0) / 1024:.1f} KiB per token in bfloat16"),
    ]


def describe_vision(vision: dict[str, Any]) -> str:
    """Return type, shape, stride and size of the encoder."""
    if vision["type"] == "ConvNeXt":
        depths, widths = (", ".join(map(str, vision[name])) for name in ("depths", "hidden_sizes"))
        shape = f"{vision['stages']} stages, depths {depths}, widths {widths}"
    else:
        shape = f"{vision['layers']} layers, width {vision['hidden_size']}"
    return f"{vision['type']}, {shape}, stride {vision['output_stride']}, {millions(vision['parameters'])}"


def describe_images(report: dict[str, Any]) -> str:
    """Return the aspect ratio policy, the resolution and the sizes in training."""
    trained = report["trained_visual_tokens"]
    sizes = "" if trained is None else f", trained on {' to '.join(map(str, sorted(set(trained))))} visual tokens"
    if report["resolution"] is not None:
        side = f"resolution {report['resolution']} (from {report['resolution_from']})"
    else:
        side = "resolution not set" if report["image_aspect_ratio"] == "pad" else "at their own size"
    return f"{report['image_aspect_ratio']}, {side}{sizes}"


def millions(number: int) -> str:
    """Return a number of parameters."""
    return f"{number / 1e6:.1f} M parameters" if number >= 1e5 else f"{number} parameters"


def gibibytes(number: int) -> str:
    """Return a size in MiB or GiB."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.1f} MiB"


def pairs(values: dict[str, Any]) -> str:
    """Return a mapping on one line."""
    return ", ".join(f"{name}: {value}" for name, value in values.items())
