"""``convllava export``: models and encoders for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .convert import Destination, MaxShardSize, Source, StoredDtype

app = typer.Typer(no_args_is_help=True)


@app.callback()
def root() -> None:
    """Write a model or its encoder for other programs."""


@app.command()
def code(
    source: Source,
    destination: Destination,
    dtype: StoredDtype = None,
    max_shard_size: MaxShardSize = "5GB",
    resolution: opt.Resolution = None,
) -> None:
    """Write a checkpoint that carries its own model code: transformers alone loads it (trust_remote_code)."""
    opt.check_model(source)
    opt.check_new(destination)
    opt.check_place(dtype)

    from ..convert import export_with_code
    from ..inference.checkpoint_files import hub_id, locate

    written = export_with_code(
        locate(source),
        destination,
        dtype=dtype,
        max_shard_size=max_shard_size,
        resolution=resolution,
        hub_id=hub_id(source),
    )
    size = written.num_bytes / 2**20
    opt.say(f"{written.folder}: {written.num_tensors} tensors, {size:.1f} MiB, and the model's code")


@app.command()
def backbone(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint, or an encoder from elsewhere.")],
    destination: Destination,
) -> None:
    """Write the vision encoder alone, for AutoBackbone."""
    opt.check_model(source, encoder_alone=True)
    opt.check_new(destination)

    from ..convert import export_backbone
    from ..inference.checkpoint_files import locate

    path = Path(source) if Path(source).exists() else locate(source)
    config = export_backbone(path, destination)
    opt.say(f"{destination}: {config.num_stages} stages, depths {config.depths}, widths {config.hidden_sizes}")


@app.command()
def onnx(
    source: Source,
    destination: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="A file that does not exist yet.")],
    projector: Annotated[bool, typer.Option(help="Include the projector; otherwise export its inputs.")] = True,
    resolution: opt.Resolution = None,
) -> None:
    """Write the vision encoder as ONNX for any batch, height and width; checked with onnxruntime at three shapes."""
    opt.check_model(source, encoder_alone=True)

    from ..convert import export_onnx, is_encoder, load_vision_tower
    from ..inference import load_pretrained
    from ..inference.checkpoint_files import locate

    path = Path(source) if Path(source).is_file() else locate(source)
    if is_encoder(path):
        if projector:
            raise ValueError(f"{source} is a vision encoder alone, without a projector: add --no-projector")
        checks = export_onnx(load_vision_tower(path).float(), None, destination)
    else:
        model, _ = load_pretrained(source, dtype="float32", device="cpu", resolution=resolution)
        base = model.model
        checks = export_onnx(base.vision_tower, base.multi_modal_projector if projector else None, destination)
    opt.say(f"{destination}: {destination.stat().st_size / 2**20:.1f} MiB")
    for check in checks:
        number, height, width = check.shape
        opt.say(f"{number} x {height}x{width}: agrees to {check.difference:.1e}")
