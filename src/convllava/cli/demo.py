"""``convllava demo``: the bundled model and images that it has never seen, right or wrong."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from rich.console import Console

    from ..inference import Answer
    from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
    from ..synthetic import Example

    Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]

ENOUGH_OVERLAP = 0.5
"""A box is right if its intersection over union with the true one is at least this."""

LONGEST_ANSWER = 200
"""Tokens; no truth is as long."""


@dataclass(frozen=True)
class Case:
    """One image of a kind of synthetic data; ``options`` set its (height, width) and the question.

    ``seed`` is that of the first series whose sample the bundled model answers rightly, so it also says how many were
    passed over (``recipes/nano/demo_seeds.py`` finds it).
    """

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


LINE = {"cap": [0.4, 0.75], "noise": 0.3}
PAGE = {"tasks": ["field"], "font_size": [28, 42], "noise": 0.3}

CASES = (
    Case("word", "line", {"sizes": [[64, 128]], **LINE}),
    Case("line", "line", {"sizes": [[64, 192]], **LINE}),
    Case("receipt", "document", {"sizes": [[320, 256]], "papers": ["receipt"], **PAGE}),
    Case("wide_form", "document", {"sizes": [[192, 384]], "papers": ["form"], **PAGE, "font_size": [28, 32]}),
    Case("tall_list", "document", {"sizes": [[384, 256]], "papers": ["price_list"], **PAGE}, seed=1),
    Case("count", "scene", {"sizes": [[128, 192]], "tasks": ["count"]}),
    Case("color", "scene", {"sizes": [[192, 128]], "tasks": ["color"]}),
    Case("existence", "scene", {"sizes": [[128, 128]], "tasks": ["existence"]}),
    Case("caption", "scene", {"sizes": [[128, 128]], "tasks": ["caption"], "most": 3}),
    Case("grounding", "grounding", {"sizes": [[128, 192]], "tasks": ["attribute"]}),
    Case("larger_than_trained", "document", {"sizes": [[512, 384]], "papers": ["label"], **PAGE}),
)
"""Case ``i`` shows sample ``i`` of a held-out series."""


def demo(
    out: Annotated[Path, typer.Option(help="Directory that the images are written to.")] = Path("demo"),
    seed: Annotated[
        int | None, typer.Option(help="Show this series of images instead of those that were picked.", min=0)
    ] = None,
    model: opt.Model = "nano",
    dtype: opt.Dtype = None,
    device: opt.Device = None,
) -> None:
    """Ask a small model about images of several shapes, drawn from words and fonts that are new to it.

    Of each kind it is the first image that nano answers rightly; `--seed` shows others, right or wrong.
    """
    from rich.console import Console

    from ..inference import load_pretrained

    loaded = load_pretrained(model, dtype=dtype, device=device)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    right = sum(show_case(console, loaded, out, index, seed) for index in range(len(CASES)))
    console.print(f"{right} of {len(CASES)} right")
    if seed is None:
        console.print(how_they_were_picked())


def how_they_were_picked() -> str:
    """Say that these are not typical, and where typical ones and their figures are."""
    passed_over = sum(case.seed for case in CASES)
    return (
        f"Picked: of each kind the first that nano answers rightly; passed over: {passed_over}. "
        "convllava demo --seed 0 shows what nobody picked; the model card has the figures of 500 of each sort."
    )


def show_case(console: "Console", loaded: "Loaded", out: Path, index: int, seed: int | None = None) -> bool:
    """Draw one image, ask about it, print what came out, and return whether it was right."""
    from ..inference import ask

    case, example = CASES[index], draw_case(index, seed)
    path = out / f"{case.name}.png"
    example.image.save(path)
    answer = ask(*loaded, example.image, example.question, max_new_tokens=LONGEST_ANSWER)
    right = is_right(example, answer)
    drawing = draw_answer(case, example, answer, out)
    print_case(console, path, example, answer, right, drawing)
    return right


def draw_case(index: int, seed: int | None = None) -> "Example":
    """Draw a case's image, the same on every machine; of its own series if none is given."""
    from ..synthetic import SyntheticDataset

    case = CASES[index]
    series = case.seed if seed is None else seed
    return SyntheticDataset(case.kind, count=len(CASES), seed=series, split="heldout", **case.options).example(index)


def is_right(example: "Example", answer: "Answer") -> bool:
    """Compare with the truth: boxes by their overlap, text word for word."""
    from ..geometry import box_iou

    if "box" in example.facts:
        return len(answer.boxes) == 1 and box_iou(answer.boxes[0], example.facts["box"]) >= ENOUGH_OVERLAP
    return answer.text.split() == example.answer.split()


def draw_answer(case: Case, example: "Example", answer: "Answer", out: Path) -> str:
    """Write the answer's box on a copy of the image where a box was asked for; say what was done."""
    from ..inference import draw_boxes

    if "box" not in example.facts:
        return ""
    if not answer.boxes:
        return "the answer has no box"
    path = out / f"{case.name}.boxes.png"
    draw_boxes(example.image, answer.boxes).save(path)
    return str(path)


def print_case(console: "Console", path: Path, example: "Example", answer: "Answer", right: bool, drawing: str) -> None:
    """Print one section of the report."""
    from rich.table import Table
    from rich.text import Text

    (rows, columns), seconds = answer.grids[0], answer.timings.total_seconds
    lines = {
        "question": example.question,
        "answer": answer.text,
        "truth": example.answer,
        "": "right" if right else "WRONG",
        "cost": f"{answer.num_image_tokens} visual tokens ({rows}x{columns}), {seconds:.2f} s",
        "box": drawing,
    }
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in lines.items():
        if value or name == "answer":
            table.add_row(name, Text(opt.printable(value)))
    title = Text(f"{path}, {example.image.width}x{example.image.height}", style="bold", overflow="fold")
    console.print(title, table, sep="\n", end="\n\n")
