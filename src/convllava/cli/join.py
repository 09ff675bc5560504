"""``convllava join``: an encoder and a language model as one untrained checkpoint."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .convert import Destination, MaxShardSize, StoredDtype


@dataclass(frozen=True)
class JoinArguments:
    """Settings of the joined model."""

    resolution: opt.Resolution = None
    image_aspect_ratio: Annotated[str, typer.Option(help="pad (to a square) or native.")] = "pad"
    prompt_format: Annotated[
        str | None,
        typer.Option(
            help="vicuna_v1, llava_v1, plain, or tokenizer for the tokenizer's own template, which is the default "
            "where there is one; otherwise vicuna_v1."
        ),
    ] = None
    layer_norm_eps: Annotated[
        float | None,
        typer.Option(help="Epsilon of the encoder's norms; by default 1e-6, and 1e-5 for OpenCLIP's xxlarge."),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of the projector's random values.")] = 0


@opt.expand_settings
def join(
    destination: Destination,
    *,
    vision_tower: Annotated[
        str,
        typer.Option(help="ConvNeXt of transformers, timm or OpenCLIP, or a CLIP ViT: file, directory or hub id."),
    ],
    language_model: Annotated[
        str, typer.Option(help="A causal language model of transformers with its tokenizer: directory or hub id.")
    ],
    settings: JoinArguments,
    dtype: StoredDtype = None,
    max_shard_size: MaxShardSize = "5GB",
) -> None:
    """Join an encoder and a language model by a new projector: the init_from of a training recipe."""
    opt.check_model(vision_tower, encoder_alone=True)
    opt.check_model(language_model)
    opt.check_new(destination)
    opt.check_place(dtype)

    from ..convert import JoinSettings
    from ..convert import join as write
    from ..inference.checkpoint_files import locate

    written, parts = write(
        locate_encoder(vision_tower),
        locate(language_model),
        destination,
        JoinSettings(**asdict(settings)),
        dtype=dtype,
        max_shard_size=max_shard_size,
    )
    opt.say(f"{written.folder}: {written.num_tensors} tensors, {written.num_bytes / 2**20:.1f} MiB; untrained")
    opt.say(f"image mean and std: {parts.notes['normalized_by']}; prompt format: {parts.config.prompt_format}")
    opt.warn(parts.notes["end_token_fault"])
    opt.remark(
        "the language model has no row for <image>: its embeddings and head grew by one" * parts.notes["new_row"]
    )


def locate_encoder(source: str) -> Path:
    """Return the path of an encoder, which may be a file."""
    from ..inference.checkpoint_files import locate

    return Path(source) if Path(source).is_file() else locate(source)
