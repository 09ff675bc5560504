"""``convllava convert``: a checkpoint in another layout."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt

Source = Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint directory, a hub id or nano.")]
Destination = Annotated[Path, typer.Argument(metavar="DST", help="A directory that does not exist yet.")]
StoredDtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16 or float16; by default each tensor keeps its dtype."),
]
MaxShardSize = Annotated[str, typer.Option(help="Size of one weight file at most, such as 5GB or 512MiB.")]


def convert(
    source: Source,
    destination: Destination,
    to: Annotated[
        str, typer.Option(help="Layout to write: convllava, or official, which the authors' code reads.")
    ] = "convllava",
    dtype: StoredDtype = None,
    max_shard_size: MaxShardSize = "5GB",
    resolution: opt.Resolution = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Directory of a LoRA adapter on the checkpoint, which is merged into it.")
    ] = None,
    quantize: opt.Quantize = None,
) -> None:
    """Rewrite a checkpoint in another layout; values stay the same unless --dtype or --quantize is given."""
    opt.check_model(source)
    opt.check_new(destination)
    opt.check_place(dtype, quantize=quantize)
    opt.check_adapter(adapter)

    from ..convert import convert as rewrite
    from ..convert import is_llava_lora
    from ..inference import save_merged
    from ..inference.checkpoint_files import hub_id, locate

    if quantize is not None or (adapter is not None and not is_llava_lora(adapter)):
        if to != "convllava":
            raise ValueError(f"--to {to} excludes --quantize and PEFT adapters: merge the adapter first, without --to")
        save_merged(
            source,
            destination,
            adapter=adapter,
            quantize=quantize,
            dtype=dtype,
            max_shard_size=max_shard_size,
            resolution=resolution,
        )
        changes = [f"{adapter} merged"] * (adapter is not None) + [str(quantize)] * (quantize is not None)
        opt.say(f"{destination}: {', '.join(['convllava', *changes])}")
        return
    written = rewrite(
        locate(source),
        destination,
        to=to,  # type: ignore[arg-type]  # checked there
        dtype=dtype,
        max_shard_size=max_shard_size,
        resolution=resolution,
        hub_id=hub_id(source),
        llava_lora=adapter,
    )
    size = written.num_bytes / 2**20
    opt.say(f"{written.folder}: {written.layout}, {written.num_tensors} tensors, {size:.1f} MiB")
