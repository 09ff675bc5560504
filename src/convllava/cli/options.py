"""Options and habits that several commands share."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Option(help="nano, a checkpoint directory or a hub id.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; the best one that is here by default.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float16; by default float32 on a CPU, else as stored.")
]
Adapter = Annotated[Path | None, typer.Option(help="Directory of a LoRA adapter of the model.")]
Quantize = Annotated[str | None, typer.Option(help="int8 or nf4: fewer bits for the language model's layers.")]
ImageAspectRatio = Annotated[str | None, typer.Option(help="pad (square) or native; the model's own by default.")]
Resolution = Annotated[int | None, typer.Option(help="Side of the square (pad) or short side (native), in pixels.")]
MaxVisualTokens = Annotated[int | None, typer.Option(help="Shrink each image to at most so many tokens.")]
ResolutionOrAuto = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS|auto",
        help="Side of the square (pad) or short side (native); auto: by shape, context and budget. The default is auto "
        "for models trained on any size, else as the model was trained.",
    ),
]
MaxFirstTokenMs = Annotated[
    float | None, typer.Option(min=0.1, help="Shrink images until the first token comes in so many milliseconds.")
]
MaxNewTokens = Annotated[int | None, typer.Option(help="Longest answer; 512 by default, fewer if they do not fit.")]
Fast = Annotated[bool, typer.Option("--fast", help="Encode images faster; equal to the plain way but for rounding.")]
Preprocessing = Annotated[
    Literal["exact", "fast"] | None,
    typer.Option(help="fast prepares images several times as fast; fine print may come out a little softer."),
]
Page = Annotated[int | None, typer.Option(help="Page of a PDF, counted from 1; the first by default.")]


def printable(text: str) -> str:
    """Replace control characters, which could drive the terminal that an answer is shown on."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def show(text: str) -> None:
    """Print a piece of an answer at once."""
    print(printable(text), end="", flush=True)


def remark(text: str) -> None:
    """Say on standard error what the user should know, if there is something."""
    if text:
        print(text, file=sys.stderr, flush=True)


def state_file(name: str) -> Path:
    """Return where something is kept from one run to the next (XDG's directory for that)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "convllava" / name
