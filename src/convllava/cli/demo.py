"""``convllava demo``: the bundled model answers questions about one new image of each kind."""

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

MIN_IOU = 0.5
"""Intersection over union with the true box from which on a box is right."""

MAX_ANSWER_TOKENS = 200
"""Maximum tokens of an answer; no true answer is as long."""


@dataclass(frozen=True)
class Case:
    """One kind of synthetic images.

    Attributes:
        name: Name of the image file.
        kind: Kind of synthetic data.
        options: Options of the kind, among them (height, width) and the question.
    """

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)


LINE = {"cap": [0.4, 0.75], "noise": 0.3}
PAGE = {"tasks": ["field"], "font_size": [28, 42], "noise": 0.3}

CASES = (
    Case("word", "line", {"sizes": [[64, 128]], **LINE}),
    Case("line", "line", {"sizes": [[64, 192]], **LINE}),
    Case("receipt", "document", {"sizes": [[320, 256]], "layouts": ["receipt"], **PAGE}),
    Case("wide_form", "document", {"sizes": [[192, 384]], "layouts": ["form"], **PAGE, "font_size": [28, 32]}),
    Case("tall_list", "document", {"sizes": [[384, 256]], "layouts": ["price_list"], **PAGE}),
    Case("count", "scene", {"sizes": [[128, 192]], "tasks": ["count"]}),
    Case("color", "scene", {"sizes": [[192, 128]], "tasks": ["color"]}),
    Case("existence", "scene", {"sizes": [[128, 128]], "tasks": ["existence"]}),
    Case("caption", "scene", {"sizes": [[128, 128]], "tasks": ["caption"], "most": 3}),
    Case("grounding", "grounding", {"sizes": [[128, 192]], "tasks": ["attribute"]}),
    Case("larger_than_trained", "document", {"sizes": [[512, 384]], "layouts": ["label"], **PAGE}),
)
"""The kinds that are shown; case ``i`` is sample ``i`` of a held-out series, so none is chosen by its answer."""


def demo(
    out: Annotated[Path, typer.Option(help="Directory for the images.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Number of the held-out series of images.", min=0)] = 0,
    model: opt.Model = "nano",
    dtype: opt.Dtype = None,
    device: opt.Device = None,
) -> None:
    """Ask a small model about one image of each kind, with words and fonts that training did not use.

    The images are the same at every run and were not chosen by the answers; right and wrong answers are marked.
    """
    loaded = opt.LoadArguments(dtype, device).load(model)
    out.mkdir(parents=True, exist_ok=True)
    console = opt.console()
    right = sum(show_case(console, loaded, out, index, seed) for index in range(len(CASES)))
    console.print(
        f"{right} of {len(CASES)} right. The images are the first samples of held-out series {seed}, not chosen by the "
        "answers; --seed N shows another series. The model card has the figures over 500 samples of each kind."
    )


def show_case(console: "Console", loaded: "Loaded", out: Path, index: int, seed: int = 0) -> bool:
    """Draw one image, ask about it, print the answer, and return whether it is right."""
    from ..inference import ask

    case, example = CASES[index], draw_case(index, seed)
    path = out / f"{case.name}.png"
    example.image.save(path)
    answer = ask(*loaded, example.image, example.question, max_new_tokens=MAX_ANSWER_TOKENS)
    right = is_right(example, answer)
    print_case(console, path, example, answer, right, draw_answer(case, example, answer, out))
    return right


def draw_case(index: int, seed: int = 0) -> "Example":
    """Draw the sample of a case in a held-out series, the same on every machine."""
    from ..synthetic import SyntheticDataset

    case = CASES[index]
    return SyntheticDataset(case.kind, count=len(CASES), seed=seed, split="heldout", **case.options).example(index)


def is_right(example: "Example", answer: "Answer") -> bool:
    """Return whether an answer is right: boxes by their overlap, text by its words."""
    from ..geometry import box_iou

    if "box" in example.facts:
        return len(answer.boxes) == 1 and box_iou(answer.boxes[0], example.facts["box"]) >= MIN_IOU
    return answer.text.split() == example.answer.split()


def draw_answer(case: Case, example: "Example", answer: "Answer", out: Path) -> str:
    """Draw the answer's box into a copy of the image if the question asks for one; return the path of the copy."""
    from ..inference import draw_boxes

    if "box" not in example.facts:
        return ""
    if not answer.boxes:
        return "the answer has no box"
    path = out / f"{case.name}.boxes.png"
    draw_boxes(example.image, answer.boxes).save(path)
    return str(path)


def print_case(console: "Console", path: Path, example: "Example", answer: "Answer", right: bool, drawing: str) -> None:
    """Print one section of the report: a title with the mark, question, answer and truth."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    (rows, columns), seconds = answer.grids[0], answer.timings.total_seconds
    size = f"{example.image.width}x{example.image.height}"
    cost = f"{answer.num_image_tokens} visual tokens ({rows}x{columns}), {seconds:.2f} s"
    mark = Text("✓ right", "bold green") if right else Text("✗ wrong", "bold red")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in {
        "question": example.question,
        "answer": answer.text,
        "truth": example.answer,
        "box": drawing,
        "image": f"{size}, {cost}",
    }.items():
        if value or name == "answer":
            table.add_row(name, Text(opt.printable(value)))
    console.print(Text.assemble(mark, "  ", (str(path), "bold"), overflow="fold"))
    console.print(Padding(table, (0, 0, 1, 2)))
