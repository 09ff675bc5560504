"""``convllava ask``: a question about one image or several."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .sizing import choice_record, choose_options, shrunk_remark

if TYPE_CHECKING:
    from ..inference import Answer

_USAGE = 'usage: convllava ask IMAGE [IMAGE...] "QUESTION"'


@dataclass(frozen=True)
class OutputArguments:
    """Form of the answer."""

    draw: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write a copy of the first image with the answer's boxes drawn on it."),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with the answer, its cost and timings.")
    ] = False


@opt.expand_settings
def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar='IMAGE... "QUESTION"',
            help="Images (path, URL, PDF, or - for standard input), then the question.",
        ),
    ],
    model: opt.Model = "nano",
    *,
    sizing: opt.SizingArguments,
    max_new_tokens: opt.MaxNewTokens = None,
    loading: opt.LoadArguments,
    preprocessing: opt.Preprocessing = None,
    page: opt.Page = None,
    output: OutputArguments,
) -> None:
    """Ask a question about one image or several."""
    sources, question = split_question(words)
    if output.draw is not None:
        check_drawing(output.draw, sources)

    from .. import inference

    # an image that is drawn on is kept at full size
    images = inference.open_images(sources, page, lazily=preprocessing == "fast" and output.draw is None)
    loaded = loading.load(model, resolution=sizing.pixels, preprocessing=preprocessing)
    options, choice = choose_options(sizing, loaded, images, question, reserved=max_new_tokens, model_name=model)
    answer = inference.ask(
        *loaded,
        images,
        question,
        on_text=None if output.as_json else opt.show,
        image_options=options,
        max_new_tokens=max_new_tokens,
    )
    opt.say(json.dumps(report(answer, model, question) | {"auto": choice_record(choice)}) if output.as_json else "")
    opt.remark(shrunk_remark(choice))
    if answer.finish_reason == "length":
        opt.remark(f"the answer was cut off at {len(answer.token_ids)} tokens: raise --max-new-tokens")
    if output.draw is not None:
        write_drawing(output.draw, images[0], answer)


def split_question(words: list[str]) -> tuple[list[str], str]:
    """Split the words of the command line into images and the question, which comes last.

    Raises:
        ValueError: The images or the question are missing.
    """
    *sources, question = words
    if is_source(question):
        from ..images import short_name

        raise ValueError(f"the question is missing: the last word {short_name(question)!r} is an image; {_USAGE}")
    if not sources:
        raise ValueError(f"an image or the question is missing, only {question!r} is given; {_USAGE}")
    if not question.strip():
        raise ValueError(f"the question is empty; {_USAGE}")
    return sources, question


def is_source(word: str) -> bool:
    """Return whether a word names an image: an existing file, an http(s) or data URL, or standard input."""
    return word == "-" or word.startswith(("http://", "https://", "data:image/")) or os.path.exists(word)


def report(answer: "Answer", model: str, question: str) -> dict[str, Any]:
    """Return the JSON object that ``--json`` prints."""
    return {
        "model": model,
        "question": question,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "boxes": [[round(edge, 2) for edge in box] for box in answer.boxes],
        "num_image_tokens": answer.num_image_tokens,
        "grids": answer.grids,
        "image_sizes": answer.image_sizes,
        "num_prompt_tokens": answer.num_prompt_tokens,
        "num_new_tokens": len(answer.token_ids),
        "timings": {name: round(seconds, 4) for name, seconds in asdict(answer.timings).items()},
    }


def check_drawing(path: Path, sources: list[str]) -> None:
    """Check before the model is loaded that a drawing can be written to ``path``.

    Raises:
        ValueError: The drawing would overwrite an input image, or cannot be written.
    """
    if any(os.path.exists(source) and path.exists() and path.samefile(source) for source in sources):
        raise ValueError(f"--draw {path} would overwrite the input image: give another name")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"--draw {path}: the name must end in .png, .jpg or .webp")
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"--draw {path} cannot be written: {path.parent} must be a directory, {path.name} a file")


def write_drawing(path: Path, image: Any, answer: "Answer") -> None:
    """Write a copy of the image with the answer's boxes, atomically."""
    from ..inference import draw_boxes
    from ..support import atomic_write

    if not answer.boxes:
        opt.remark(f"the answer has no box: {path} was not written")
        return
    with atomic_write(path) as temporary:
        draw_boxes(image, answer.boxes).save(temporary)
