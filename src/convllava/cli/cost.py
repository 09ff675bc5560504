"""``convllava cost``: what images cost, and which shape to show them in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    import torch

    from ..analysis.calibration import Calibration
    from ..model import ConvLlavaConfig

DATA_ENDINGS = (".json", ".jsonl")

LISTED = 20
"""Images that are shown one by one; of more, the totals."""


def cost(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL | IMAGE... | DIR | DATASET]",
            help="A model (nano, preset, directory, hub id), images, a folder, or LLaVA JSON.",
        ),
    ] = None,
    model: opt.Model = "nano",
    height: Annotated[int | None, typer.Option(min=1, help="Of the image shown to MODEL, in pixels.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Of the image shown to MODEL, in pixels.")] = None,
    text_tokens: Annotated[int, typer.Option(min=0, help="Of prompt format and question.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 1,
    resolution: Annotated[list[int] | None, typer.Option(help="To compare; repeatable. 768, 1024, 1536.")] = None,
    budget: Annotated[list[int] | None, typer.Option(help="Visual tokens to compare; repeatable.")] = None,
    max_visual_tokens: Annotated[int | None, typer.Option(min=1, help="That the picked shape may take.")] = None,
    max_ttft_ms: opt.MaxFirstTokenMs = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16; float32 on a CPU, else bfloat16.")
    ] = None,
    device: opt.Device = None,
    image_folder: Annotated[Path | None, typer.Option(help="Where the images of DATASET lie.")] = None,
    table1: Annotated[bool, typer.Option("--table1", help="The systems of the paper's Table 1, counted.")] = False,
    figure2: Annotated[bool, typer.Option("--figure2", help="The paper's Figure 2 as PNG, SVG and CSV.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the files of --table1 and --figure2.")] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure this device, once a model.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Calibrate on few and small shapes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count what images cost: tokens, FLOPs, memory and time to the first token."""
    from .cost_report import Printer

    printer = Printer(as_json)
    place = Place.of(device, dtype)
    question = Question(text_tokens, new_tokens)
    if table1 or figure2:
        _published(printer, table1, figure2, out)
    elif calibrate:
        _calibrate(printer, model if not what else _only(what), place, quick)
    elif not what:
        raise ValueError("nothing to count: give a model, images, a folder or a data set (convllava cost --help)")
    elif len(what) == 1 and is_model(what[0]):
        _model(printer, what[0], height, width, question, place)
    else:
        limits = Limits(resolution, budget, max_visual_tokens, max_ttft_ms)
        _images(printer, what, model, image_folder, limits, question, place)
    printer.finish()


@dataclass(frozen=True)
class Question:
    """Lengths of the prompt's text and of the answer."""

    text_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Limits:
    """What is compared, and what the picked shape has to keep."""

    resolutions: Sequence[int] | None
    budgets: Sequence[int] | None
    max_visual_tokens: int | None
    max_ttft_ms: float | None


@dataclass(frozen=True)
class Place:
    """Where a model would run; the device is looked up when it is needed."""

    wanted_device: str | None
    wanted_dtype: str | None

    @classmethod
    def of(cls, device: str | None, dtype: str | None) -> "Place":
        """Check the dtype before anything is counted."""
        from ..analysis.counting import bytes_per_element

        if dtype is not None:
            bytes_per_element(dtype)
        return cls(device, dtype)

    @property
    def device(self) -> "torch.device":
        """The device, checked to be there."""
        from ..inference.loading import _device

        return _device(self.wanted_device)

    @property
    def dtype(self) -> str:
        """float32 on a CPU, as models are loaded there, else bfloat16."""
        return self.wanted_dtype or ("float32" if self.device.type == "cpu" else "bfloat16")


def is_model(name: str) -> bool:
    """Tell a model (bundled, preset, checkpoint directory, hub id) from images and data."""
    from ..inference.checkpoint_files import BUNDLED
    from ..model import PRESETS

    path = Path(name)
    if path.is_dir():
        return (path / "config.json").is_file()
    known = name in BUNDLED or name in PRESETS
    hub_id = name.count("/") == 1 and not path.suffix and not path.exists() and not name.startswith((".", "/"))
    return not path.is_file() and (known or hub_id)


def read_config(name: str) -> "ConvLlavaConfig":
    """Return the configuration of a model; of one on the hub, nothing else is fetched.

    Raises:
        ValueError: There is no such model, or it is of another kind.
    """
    from ..inference.checkpoint_files import BUNDLED
    from ..model import PRESETS, ConvLlavaConfig, preset

    if name not in BUNDLED and name in PRESETS:
        return preset(name)
    source = str(BUNDLED.get(name, name))
    if not is_model(name):
        near = ", ".join([*BUNDLED, *(known for known in PRESETS if known not in BUNDLED)])
        raise ValueError(f"unknown model {name!r}: give a directory with config.json, a hub id, or one of {near}")
    try:
        config = ConvLlavaConfig.from_pretrained(source)
    except Exception as error:  # transformers and the hub raise anything
        raise ValueError(f"cannot read the configuration of {name}: {str(error).strip().splitlines()[0]}") from error
    return config


def _only(what: list[str]) -> str:
    if len(what) > 1:
        raise ValueError(f"--calibrate takes one model, got {len(what)}: {', '.join(what)}")
    return what[0]


def _published(printer: Any, table1: bool, figure2: bool, out: Path | None) -> None:
    from ..analysis.figure import figure_2_rows, write_csv, write_figure_2
    from ..analysis.systems import claims, table_1

    folder = out or Path(".")
    if table1:
        rows = printer.table_1(table_1())
        if out is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_csv(folder / "table1.csv", rows)
            printer.written([folder / "table1.csv"])
    if figure2:
        files = write_figure_2(folder)
        printer.figure_2(figure_2_rows())
        printer.written(files)
    printer.claims(claims())


def _calibrate(printer: Any, name: str, place: Place, quick: bool) -> None:
    from ..analysis import measure, save_calibration

    config = read_config(name)
    plan = measure.QUICK if quick else measure.FULL
    if place.device.type == "cpu" and (warning := measure.busy()):
        printer.progress(f"warning: {warning}")
    result = measure.calibrate(
        config, name, device=place.device, dtype=place.dtype, plan=plan, on_progress=printer.progress
    )
    printer.calibration(result, save_calibration(result))


def _model(printer: Any, name: str, height: int | None, width: int | None, question: Question, place: Place) -> None:
    from ..analysis import load_calibration, model_cost

    config = read_config(name)
    height = height or width or config.resolution
    if height is None:
        raise ValueError(f"{name} takes images of any size: give --height and --width in pixels")
    counted = model_cost(
        config,
        height,
        width or height,
        text_tokens=question.text_tokens,
        new_tokens=question.new_tokens,
        dtype=place.dtype,
    )
    calibration = load_calibration(config, place.device, place.dtype)
    printer.model(name, config, counted, calibration)


def _images(
    printer: Any,
    what: list[str],
    model: str,
    image_folder: Path | None,
    limits: Limits,
    question: Question,
    place: Place,
) -> None:
    from ..analysis import load_calibration, policies
    from ..analysis.compare import Budget, Comparison
    from ..analysis.policies import BUDGETS, RESOLUTIONS

    config = read_config(model)
    calibration = load_calibration(config, place.device, place.dtype)
    if limits.max_ttft_ms is not None:
        require_calibration(calibration, model)
    seconds = None if limits.max_ttft_ms is None else limits.max_ttft_ms / 1000
    comparison = Comparison(
        config,
        policies(config, limits.resolutions or RESOLUTIONS, limits.budgets or BUDGETS),
        text_tokens=question.text_tokens,
        new_tokens=question.new_tokens,
        dtype=place.dtype,
        calibration=calibration,
        budget=Budget(limits.max_visual_tokens, seconds),
    )
    sizes = image_sizes(what, image_folder)
    printer.head(model, config, question, place.dtype, calibration)
    if len(sizes) <= LISTED:
        for name, size in sizes:
            printer.image(name, size, comparison.rows(size), *comparison.pick(size))
    if len(sizes) > 1:
        printer.totals(comparison.totals(size for _, size in sizes))


def require_calibration(calibration: "Calibration | None", model: str) -> "Calibration":
    """Return the calibration, or say how to make one.

    Raises:
        ValueError: There is none.
    """
    if calibration is None:
        raise ValueError(
            f"--max-ttft-ms needs to know how fast {model} runs here, in this precision and with as many threads: "
            f"run 'convllava cost --calibrate --model {model}' once"
        )
    return calibration


def image_sizes(what: Sequence[str], image_folder: Path | None = None) -> list[tuple[str, tuple[int, int]]]:
    """Return name and (height, width) of every image that was named, read from headers where they are files.

    Raises:
        ValueError: Something is missing or no image.
    """
    found: list[tuple[str, tuple[int, int]]] = []
    for name in what:
        found += _sizes_of(name, image_folder)
    return found


def _sizes_of(name: str, image_folder: Path | None) -> list[tuple[str, tuple[int, int]]]:
    from ..images import IMAGE_SUFFIXES, image_files, image_size

    path = Path(name)
    if path.is_dir():
        return [(str(image), image_size(image)) for image in image_files(path)]
    if path.is_file() and path.suffix.lower() in DATA_ENDINGS:
        return _sizes_in_data(path, image_folder)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return [(name, image_size(path))]
    from ..inference import open_image

    image = open_image(name)  # a URL, standard input, a PDF, or the message on what is wrong
    return [(name, (image.height, image.width))]


def _sizes_in_data(path: Path, image_folder: Path | None) -> list[tuple[str, tuple[int, int]]]:
    from ..data.sources import open_source
    from ..images import image_size

    source = open_source(path=path, image_folder=image_folder)
    images = [item for index in range(len(source)) for item in source[index].images if isinstance(item, Path)]
    if not images:
        raise ValueError(f"{path} holds no images, only text")
    return [(str(image), image_size(image)) for image in images]
