"""``convllava cost``: the cost of images, and the image size to choose for a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt
from .cost_inputs import DATA_ENDINGS, check_is_model, check_known, image_sizes, is_model, read_config

if TYPE_CHECKING:
    import torch

    from ..analysis.calibration import Calibration
    from ..model import ConvLlavaConfig
    from .cost_report import Printer

MAX_LISTED = 20
"""Number of images up to which each one is listed; beyond it only the totals are."""


@dataclass(frozen=True)
class ShapeArguments:
    """Size of the image that a model is counted on."""

    height: Annotated[int | None, typer.Option(min=1, help="Height of the image that MODEL gets, in pixels.")] = None
    width: Annotated[int | None, typer.Option(min=1, help="Width of the image that MODEL gets, in pixels.")] = None


@dataclass(frozen=True)
class LengthArguments:
    """Lengths of the prompt's text and of the answer."""

    text_tokens: Annotated[int, typer.Option(min=0, help="Tokens of prompt format and question.")] = 64
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 1


@dataclass(frozen=True)
class CompareArguments:
    """Image sizes that are compared, and limits of the picked one."""

    resolution: Annotated[
        list[int] | None, typer.Option(help="Resolution to compare; repeatable. By default 768, 1024 and 1536.")
    ] = None
    budget: Annotated[
        list[int] | None,
        typer.Option(help="Visual token budget to compare; repeatable. By default 64, 144, 256 and 576."),
    ] = None
    max_visual_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum visual tokens of the picked size.")] = (
        None
    )
    max_ttft_ms: Annotated[
        float | None,
        typer.Option(min=0.1, help="Maximum milliseconds to the first token with the picked size; needs --calibrate."),
    ] = None
    image_folder: Annotated[
        Path | None, typer.Option(help="Folder of the images of DATASET; by default the folder of DATASET.")
    ] = None


@dataclass(frozen=True)
class PlaceArguments:
    """Precision and device that memory and times are for; the device is looked up when it is needed.

    Raises:
        ValueError: The dtype is unknown.
    """

    dtype: Annotated[
        str | None,
        typer.Option(help="Precision: float32, bfloat16 or float16; by default float32 on a CPU, otherwise bfloat16."),
    ] = None
    device: opt.Device = None

    def __post_init__(self) -> None:
        opt.check_place(self.dtype, self.device)

    def torch_device(self) -> "torch.device":
        """Return the device, checked to exist."""
        from ..inference import resolve_device

        return resolve_device(self.device)

    def dtype_name(self) -> str:
        """Return the dtype, by default that of a model loaded on the device."""
        return self.dtype or ("float32" if self.torch_device().type == "cpu" else "bfloat16")

    def calibration(self, config: "ConvLlavaConfig") -> "Calibration | None":
        """Return the stored calibration of a model here, or None."""
        from ..analysis import load_calibration

        return load_calibration(config, self.torch_device(), self.dtype_name())


@dataclass(frozen=True)
class PaperArguments:
    """The paper's Table 1 and Figure 2."""

    table1: Annotated[bool, typer.Option("--table1", help="Count the systems of the paper's Table 1.")] = False
    figure2: Annotated[
        bool, typer.Option("--figure2", help="Write the paper's Figure 2 as PNG, SVG and CSV (needs matplotlib).")
    ] = False
    out: Annotated[Path | None, typer.Option(help="Folder for the files of --table1 and --figure2.")] = None


@dataclass(frozen=True)
class CalibrateArguments:
    """Measurement of this device."""

    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the times of a model on this device; once per model.")
    ] = False
    quick: Annotated[bool, typer.Option("--quick", help="Calibrate on few and small image sizes.")] = False


@dataclass(frozen=True)
class CostArguments:
    """All options of ``convllava cost``."""

    shape: ShapeArguments
    lengths: LengthArguments
    compared: CompareArguments
    place: PlaceArguments
    paper: PaperArguments
    measured: CalibrateArguments


@opt.expand_settings
def cost(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|IMAGE|DIR|DATASET",
            help="A model (nano, preset, directory or hub id), images, a folder of images, or a LLaVA JSON file.",
        ),
    ] = None,
    model: opt.Model = "nano",
    *,
    settings: CostArguments,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count the cost of images: visual tokens, FLOPs, memory, time to the first token."""
    from .cost_report import Printer

    check_used(settings, what or [], model)
    for name in what or []:
        check_known(name)
    check_is_model(model)
    printer = Printer(as_json)
    if settings.paper.table1 or settings.paper.figure2:
        print_paper(printer, settings.paper)
    elif settings.measured.calibrate:
        calibrate(printer, _only(what) if what else model, settings)
    elif not what:
        raise ValueError("nothing to count: give a model, images, a folder or a data set (convllava cost --help)")
    elif len(what) == 1 and is_model(what[0]):
        print_model(printer, what[0], settings)
    else:
        print_images(printer, what, model, settings)
    printer.finish()


def check_used(settings: CostArguments, what: Sequence[str], model: str) -> None:
    """Check that every given option has an effect on what is counted.

    Raises:
        ValueError: Names the option and what it is for.
    """
    compared, paper, shape = settings.compared, settings.paper, settings.shape
    of_paper, calibrates = paper.table1 or paper.figure2, settings.measured.calibrate
    of_model = not of_paper and not calibrates and len(what) == 1 and is_model(what[0])
    of_images = bool(what) and not (of_paper or calibrates or of_model)
    for_images = {
        "--resolution": compared.resolution,
        "--budget": compared.budget,
        "--max-visual-tokens": compared.max_visual_tokens,
        "--max-ttft-ms": compared.max_ttft_ms,
        "--image-folder": compared.image_folder,
    }
    ignored = [] if of_images else [name for name, value in for_images.items() if value]
    hint = "it is for images; the size that a model is counted on is --height and --width"
    if not ignored and not of_model:
        ignored = [name for name, value in {"--height": shape.height, "--width": shape.width}.items() if value]
        hint = "it is for a model; images are compared at --resolution and --budget"
    if not ignored and of_paper and what:
        ignored, hint = [what[0]], "--table1 and --figure2 count the paper's systems: leave it out"
    if not ignored and paper.out is not None and not of_paper:
        ignored, hint = ["--out"], "it is for --table1 and --figure2"
    if not ignored and settings.measured.quick and not calibrates:
        ignored, hint = ["--quick"], "it is for --calibrate"
    is_data = any(Path(name).suffix.lower() in DATA_ENDINGS for name in what)
    if not ignored and compared.image_folder is not None and not is_data:
        ignored, hint = ["--image-folder"], "it is for a LLaVA JSON file"
    if not ignored and of_model and model != "nano":
        ignored, hint = [f"--model {model}"], f"{what[0]} is a model already: give images to count with --model"
    if ignored:
        raise ValueError(f"{ignored[0]} has no effect here: {hint}")


def print_paper(printer: "Printer", paper: PaperArguments) -> None:
    """Count the paper's Table 1 and Figure 2, print them and write their files."""
    from ..analysis.figure import figure_2_points, write_csv, write_figure_2
    from ..analysis.systems import claims, table_1

    folder = paper.out or Path(".")
    if paper.table1:
        records = printer.table_1(table_1())
        if paper.out is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_csv(folder / "table1.csv", records)
            printer.written([folder / "table1.csv"])
    if paper.figure2:
        files = write_figure_2(folder)
        printer.figure_2(figure_2_points())
        printer.written(files)
    printer.claims(claims())


def calibrate(printer: "Printer", name: str, settings: CostArguments) -> None:
    """Measure a model on this device, store its fitted times and print their errors."""
    from ..analysis import measure, save_calibration

    config, place = read_config(name), settings.place
    if place.torch_device().type == "cpu" and (warning := measure.busy_warning()):
        printer.progress(f"warning: {warning}")
    result = measure.calibrate(
        config,
        name,
        device=place.torch_device(),
        dtype=place.dtype_name(),
        plan=measure.QUICK if settings.measured.quick else measure.FULL,
        on_progress=printer.progress,
    )
    printer.calibration(result, save_calibration(result))


def print_model(printer: "Printer", name: str, settings: CostArguments) -> None:
    """Print the cost of each part of a model on one image."""
    from ..analysis import model_cost
    from ..analysis.budget import context_of

    config, shape, lengths = read_config(name), settings.shape, settings.lengths
    height = shape.height or shape.width or config.resolution
    if height is None:
        raise ValueError(f"{name} takes images of any size: give --height and --width in pixels")
    counted = model_cost(
        config,
        height,
        shape.width or height,
        text_tokens=lengths.text_tokens,
        new_tokens=lengths.new_tokens,
        dtype=settings.place.dtype_name(),
    )
    printer.model(name, config, counted, settings.place.calibration(config))
    needed, context = counted.prompt_tokens + lengths.new_tokens, context_of(config)
    if needed > context:
        printer.warning(f"{needed} tokens exceed the context of {context}, so {name} cannot answer this")


def print_images(printer: "Printer", what: list[str], model: str, settings: CostArguments) -> None:
    """Print the cost of images under several sizing policies, and the size to pick for each."""
    from ..analysis import policies
    from ..analysis.compare import Budget, Comparison
    from ..analysis.policies import BUDGETS, RESOLUTIONS

    config, lengths, compared = read_config(model), settings.lengths, settings.compared
    dtype, calibration = settings.place.dtype_name(), settings.place.calibration(config)
    if compared.max_ttft_ms is not None:
        require_calibration(calibration, model)
    seconds = None if compared.max_ttft_ms is None else compared.max_ttft_ms / 1000
    comparison = Comparison(
        config,
        policies(config, compared.resolution or RESOLUTIONS, compared.budget or BUDGETS),
        text_tokens=lengths.text_tokens,
        new_tokens=lengths.new_tokens,
        dtype=dtype,
        calibration=calibration,
        budget=Budget(compared.max_visual_tokens, seconds),
    )
    sizes = image_sizes(what, compared.image_folder)
    printer.head(model, config, lengths, dtype, calibration)
    if len(sizes) <= MAX_LISTED:
        for name, size in sizes:
            printer.image(name, size, comparison.costs(size), *comparison.pick(size))
    if len(sizes) > 1:
        printer.totals(comparison.totals(size for _, size in sizes))


def _only(what: list[str]) -> str:
    if len(what) > 1:
        raise ValueError(f"--calibrate takes one model, got {len(what)}: {', '.join(what)}")
    return what[0]


def require_calibration(calibration: "Calibration | None", model: str) -> "Calibration":
    """Return the calibration if there is one.

    Raises:
        ValueError: It is None; the message has the command that makes one.
    """
    if calibration is None:
        raise ValueError(
            f"--max-ttft-ms needs the times of {model} on this device, in this precision and with this number of "
            f"threads: run 'convllava cost --calibrate --model {model}' once"
        )
    return calibration
