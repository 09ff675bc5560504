"""``convllava convert``: a checkpoint in another layout."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint directory, a hub id or nano.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="A directory that does not exist yet.")],
    to: Annotated[str, typer.Option(help="convllava, or official: what the authors' code reads.")] = "convllava",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default each tensor keeps its own.")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of one weight file.")] = "5GB",
    resolution: opt.Resolution = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Directory of a LoRA adapter of the checkpoint, which is merged.")
    ] = None,
    quantize: opt.Quantize = None,
) -> None:
    """Rewrite a checkpoint in another layout, its values unchanged unless --dtype or --quantize says otherwise."""
    from ..convert import convert as rewrite
    from ..convert import is_llava_lora
    from ..inference.checkpoint_files import hub_id, locate

    if quantize is not None or (adapter is not None and not is_llava_lora(adapter)):
        if to != "convllava":
            raise ValueError(
                f"--to {to} takes neither --quantize nor an adapter of PEFT: merge that first, without --to"
            )
        rewrite_loaded(source, destination, adapter, quantize, dtype, max_shard_size, resolution)
        print(
            f"{destination}: convllava"
            + f", {adapter} merged" * (adapter is not None)
            + f", {quantize}" * bool(quantize)
        )
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
    print(f"{written.folder}: {written.layout}, {written.num_tensors} tensors, {size:.1f} MiB")


def rewrite_loaded(
    source: str,
    destination: Path,
    adapter: Path | None,
    quantize: str | None,
    dtype: str | None,
    max_shard_size: str,
    resolution: int | None,
) -> None:
    """Write a checkpoint with an adapter of PEFT merged into it, or in fewer bits; the model is in memory meanwhile."""
    from ..convert import is_llava_lora, quiet
    from ..convert.destination import whole_or_nothing
    from ..inference import load_pretrained

    if quantize is not None and adapter is not None and not is_llava_lora(adapter):
        raise ValueError("an adapter of PEFT is not merged into quantized weights: convert twice, first with --adapter")
    loaded = load_pretrained(
        source, dtype=dtype or "auto", device="cpu", adapter=adapter, quantize=quantize, resolution=resolution
    )
    with whole_or_nothing(destination) as folder, quiet():
        loaded[0].save_pretrained(folder, max_shard_size=max_shard_size)
        loaded[1].save_pretrained(folder)
