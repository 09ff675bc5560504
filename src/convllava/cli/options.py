"""Options that several commands share, alone and in groups, and the small habits of the commands.

typer makes one option of each parameter of a function. A command with many options groups them into dataclasses
instead, whose fields are annotated as parameters would be, and is decorated with :func:`expand_settings`.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from ..image_options import ImageOptions
from ..support import escaped, is_shown
from .checks import check_adapter, check_exists, check_model, check_new, check_place, working

__all__ = ["check_adapter", "check_exists", "check_model", "check_new", "check_place", "working"]

if TYPE_CHECKING:
    from rich.console import Console

    from ..model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaProcessor

AUTO = "auto"
"""Resolution that is chosen for the images."""

Model = Annotated[str, typer.Option(help="Model: nano, a checkpoint directory or a hub id.")]
ModelOrNone = Annotated[str | None, typer.Option("--model", help="Model: nano, a checkpoint directory or a hub id.")]
ModelArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="The same as --model, which other commands have too.")
]
Device = Annotated[str | None, typer.Option(help="Device: cpu, cuda or mps; by default the best available.")]
Dtype = Annotated[
    str | None,
    typer.Option(help="Precision: float32, bfloat16 or float16; by default float32 on a CPU, otherwise as stored."),
]
Adapter = Annotated[Path | None, typer.Option(help="Directory of a LoRA adapter to load with the model.")]
Quantize = Annotated[str | None, typer.Option(help="Quantize the language model's layers: int8 or nf4.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="Use the optimized vision encoder; its features differ by rounding only.")
]
ImageAspectRatio = Annotated[
    str | None, typer.Option(help="pad (to a square) or native; by default as the model was trained.")
]
Resolution = Annotated[int | None, typer.Option(help="Side of the square (pad) or short side (native), in pixels.")]
MaxVisualTokens = Annotated[
    int | None, typer.Option(help="Maximum visual tokens per image; larger images are scaled down.")
]
ResolutionOrAuto = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS|auto",
        help="Side of the square (pad) or short side (native), in pixels. auto chooses it by image shape, context "
        "length and token budget, and is the default of models trained at any size; other models default to the "
        "resolution they were trained at.",
    ),
]
MaxFirstTokenMs = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="Scale images down until the first token is expected within this many milliseconds (run 'convllava cost "
        "--calibrate' once before).",
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum tokens of an answer; by default 512, or as many as the context still holds."),
]
Preprocessing = Annotated[
    Literal["exact", "fast"] | None,
    typer.Option(help="fast prepares images several times faster; fine print may lose a little sharpness."),
]
Page = Annotated[
    str | None,
    typer.Option(
        metavar="PAGES",
        help="Page of a PDF or frame of a TIFF, GIF or other file with several, counted from 1; by default the first. "
        "2-5, 2- or 1,3 for several, which become as many images.",
    ),
]
PdfPassword = Annotated[
    str | None, typer.Option(envvar="CONVLLAVA_PDF_PASSWORD", help="Password of locked PDFs.", show_envvar=True)
]


@dataclass(frozen=True)
class DeviceArguments:
    """Device and precision of a model."""

    dtype: Dtype = None
    device: Device = None

    def __post_init__(self) -> None:
        check_place(self.dtype, self.device)


@dataclass(frozen=True)
class LoadArguments(DeviceArguments):
    """Options of loading a model."""

    adapter: Adapter = None
    quantize: Quantize = None
    fast: Fast = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_place(quantize=self.quantize)
        check_adapter(self.adapter)

    def load(
        self, source: str, *, resolution: int | None = None, preprocessing: str | None = None
    ) -> "tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]":
        """Load a model and its processor; warn of a model without instruction tuning.

        Args:
            source: "nano", a checkpoint directory or a hub id.
            resolution: Used where the checkpoint does not state one.
            preprocessing: "exact" or "fast"; by default as the checkpoint says.

        Raises:
            ValueError: The model cannot be loaded with these options.
        """
        check_model(source)
        with working(f"loading {source}"):
            from ..inference import load_pretrained, stage_warning

            model, processor = load_pretrained(
                source, **asdict(self), fallback_resolution=resolution, preprocessing=preprocessing
            )
        warn(stage_warning(model))
        return model, processor


@dataclass(frozen=True)
class ImageArguments:
    """Image options given as numbers."""

    image_aspect_ratio: ImageAspectRatio = None
    resolution: Resolution = None
    max_visual_tokens: MaxVisualTokens = None

    @property
    def options(self) -> ImageOptions:
        """Image options that are set."""
        return ImageOptions(self.image_aspect_ratio, self.resolution, self.max_visual_tokens)


@dataclass(frozen=True)
class SizingArguments:
    """Image options of which the resolution may be chosen by the images, the context and a time limit."""

    image_aspect_ratio: ImageAspectRatio = None
    resolution: ResolutionOrAuto = None
    max_visual_tokens: MaxVisualTokens = None
    max_ttft_ms: MaxFirstTokenMs = None

    def __post_init__(self) -> None:
        if self.resolution not in (None, AUTO) and not str(self.resolution).lstrip("-").isdigit():
            raise ValueError(f"--resolution {self.resolution!r}: give a number of pixels, or auto")
        ImageOptions(self.image_aspect_ratio, self.pixels, self.max_visual_tokens)  # checks their values

    @property
    def pixels(self) -> int | None:
        """The resolution if it is a number, else None."""
        return None if self.resolution in (None, AUTO) else int(str(self.resolution))

    @property
    def options(self) -> ImageOptions:
        """Image options that are set."""
        return ImageOptions(self.image_aspect_ratio, self.pixels, self.max_visual_tokens)

    def chooses_size(self, config: "ConvLlavaConfig") -> bool:
        """Return whether sizes are chosen: with ``auto``, and by default for a model trained on any size."""
        from ..analysis import allows_auto

        if self.resolution is None:
            return self.image_aspect_ratio is None and allows_auto(config)
        return self.resolution == AUTO


def expand_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command so that typer sees each field of its dataclass parameters as a parameter.

    The command itself is called with the dataclasses, built from the options. Fields may be dataclasses too::

        @dataclass(frozen=True)
        class Sampling:
            temperature: Annotated[float, typer.Option(help="...")] = 0.0
            seed: Annotated[int, typer.Option(help="...")] = 0

        @expand_settings
        def generate(prompt: str, *, sampling: Sampling) -> None:   # PROMPT --temperature --seed
            ...

    Args:
        command: A function for typer; options in groups follow ``*``, since a group has no default.

    Raises:
        ValueError: Two options have the same name.
    """
    signature = inspect.signature(command, eval_str=True)
    flat: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if is_dataclass(parameter.annotation):
            flat += _parameters_of(parameter.annotation)
        else:
            flat.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        command(
            **{
                name: _build(parameter.annotation, values) if is_dataclass(parameter.annotation) else values[name]
                for name, parameter in signature.parameters.items()
            }
        )

    del expanded.__wrapped__  # its parameters are not those of the command line
    expanded.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return expanded


def _parameters_of(group: Any) -> Iterator[inspect.Parameter]:
    """Yield the parameters that stand for the fields of a dataclass, those of nested dataclasses included."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if is_dataclass(hints[field.name]):
            yield from _parameters_of(hints[field.name])
        else:
            yield inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name]
            )


def _default(field: "Field[Any]") -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _build(group: Any, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(group)
    return group(
        **{
            field.name: _build(hints[field.name], values) if is_dataclass(hints[field.name]) else values[field.name]
            for field in fields(group)
        }
    )


def one_model(argument: str | None, option: str | None, default: str | None = None) -> str:
    """Return the model, which is given as an argument or as an option.

    Raises:
        ValueError: It is missing, or given twice.
    """
    if argument and option and argument != option:
        raise ValueError(f"two models are given, {argument!r} and --model {option!r}: give one of them")
    if (model := argument or option or default) is None:
        raise ValueError("the model is missing: give --model nano, a checkpoint directory or a hub id")
    return model


def printable(text: str) -> str:
    """Replace control characters, which could drive the terminal that an answer is shown on."""
    return "".join(c if is_shown(c) else "\ufffd" for c in text)


def show(text: str) -> None:
    """Print a piece of an answer at once."""
    print(printable(text), end="", flush=True)


def say(text: str, end: str = "\n") -> None:
    """Print a line on standard output; names of files may hold control characters."""
    print(escaped(text), end=end, flush=True)


def console(**options: Any) -> "Console":
    """Return a console for tables and colors that takes texts as they are, with control characters escaped.

    Args:
        options: Options of ``rich.console.Console``.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class EscapingConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(escaped(segment.text), segment.style)

    return EscapingConsole(markup=False, emoji=False, highlight=False, **options)


def remark(text: str) -> None:
    """Print a remark or an error on standard error, unless it is empty; names of files may hold control characters."""
    if text:
        print(escaped(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning on standard error, unless it is empty."""
    remark(f"warning: {text}" if text else "")


def state_file(name: str) -> Path:
    """Return the path of a file that is kept from one run to the next, in the XDG state directory."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "convllava" / name
