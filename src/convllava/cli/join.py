"""``convllava join``: an encoder and a language model as one untrained checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt


def join(
    destination: Annotated[Path, typer.Argument(metavar="DST", help="A directory that does not exist yet.")],
    vision_tower: Annotated[
        str,
        typer.Option(help="ConvNeXt of transformers, timm or OpenCLIP, or a CLIP ViT: file, directory or hub id."),
    ],
    language_model: Annotated[
        str, typer.Option(help="Any causal language model of transformers with its tokenizer: directory or hub id.")
    ],
    resolution: opt.Resolution = None,
    image_aspect_ratio: Annotated[str, typer.Option(help="pad (square) or native.")] = "pad",
    prompt_format: Annotated[
        str | None,
        typer.Option(
            help="vicuna_v1, llava_v1, plain or tokenizer (its own template, the default where it has one; else "
            "vicuna_v1)."
        ),
    ] = None,
    layer_norm_eps: Annotated[
        float | None, typer.Option(help="Of the encoder; by default 1e-6, and 1e-5 for OpenCLIP's xxlarge.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the projector's random values.")] = 0,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default each tensor keeps its own.")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of one weight file.")] = "5GB",
) -> None:
    """Join an encoder and a language model by a fresh projector: where a training recipe starts (init_from)."""
    from ..convert import join as write
    from ..inference.checkpoint_files import locate

    written, parts = write(
        place(vision_tower),
        locate(language_model),
        destination,
        resolution=resolution,
        image_aspect_ratio=image_aspect_ratio,
        prompt_format=prompt_format,
        layer_norm_eps=layer_norm_eps,
        seed=seed,
        dtype=dtype,
        max_shard_size=max_shard_size,
    )
    print(f"{written.folder}: {written.num_tensors} tensors, {written.num_bytes / 2**20:.1f} MiB; untrained")
    print(f"images are normalized as {parts.notes['normalized_by']} has it; prompts are {parts.config.prompt_format}")
    opt.remark(
        "the language model has no row for <image>: its embeddings and head grew by one" * parts.notes["new_row"]
    )


def place(source: str) -> Path:
    """Return where an encoder lies, which may be a file."""
    from ..inference.checkpoint_files import locate

    return Path(source) if Path(source).is_file() else locate(source)
