"""``convllava ask``: a question about one image or several."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .ask_each import EachArguments, Job, answer_each, files_and_questions, settings_of
from .generation import GenerationArguments, JsonSchema, System, cut_remark, read_schema
from .sizing import choice_record, choose_options, size_remark

if TYPE_CHECKING:
    from ..inference import Answer
    from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

    Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]

NOT_ALL_ANSWERED = 1
"""Exit code of ``--each`` if a question has no answer."""

MAX_PATH = 79
"""Length up to which a word that names no file is reported as a missing one; a longer one may be base64."""

_USAGE = 'usage: convllava ask IMAGE [IMAGE...] "QUESTION"'


@dataclass(frozen=True)
class OutputArguments:
    """Form of the answer."""

    draw: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write a copy of the image with the answer's boxes drawn on it."),
    ] = None
    box_image: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of the image that boxes in the answer are about; by default the one that the question names "
            "(the second image, image 2), otherwise the last.",
        ),
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
    generation: GenerationArguments,
    system: System = None,
    json_schema: JsonSchema = None,
    loading: opt.LoadArguments,
    preprocessing: opt.Preprocessing = None,
    page: opt.Page = None,
    pdf_password: opt.PdfPassword = None,
    output: OutputArguments,
    many: EachArguments,
) -> None:
    """Ask a question about one image or several, or about each of many."""
    many.check_used()
    request = {"max_new_tokens": None, "system": system, "json_schema": read_schema(json_schema)} | generation.given()
    reading = Reading(model, loading, sizing, preprocessing, pdf_password, request)
    if many.each:
        check_each(page, output, sizing)
        ask_about_each(words, reading, output, many)
    else:
        ask_once(words, reading, output, page)


@dataclass(frozen=True)
class Reading:
    """The model, how it is shown images, and fields of its requests."""

    model: str
    loading: opt.LoadArguments
    sizing: opt.SizingArguments
    preprocessing: str | None
    pdf_password: str | None
    request: dict[str, Any]

    def load(self) -> "Loaded":
        """Load the model."""
        return self.loading.load(self.model, resolution=self.sizing.pixels, preprocessing=self.preprocessing)


def ask_once(words: list[str], reading: Reading, output: OutputArguments, page: str | None) -> None:
    """Ask one question about all images together and print the answer."""
    sources, question = split_question(words)
    if output.draw is not None:
        check_drawing(output.draw, sources)
    for source in sources:
        if not is_source(source) and len(source) <= MAX_PATH:
            opt.check_exists(source)
    opt.check_model(reading.model)

    from .. import inference

    # an image that is drawn on is kept at full size
    lazily = reading.preprocessing == "fast" and output.draw is None
    images = inference.open_images(sources, page, lazily=lazily, password=reading.pdf_password)
    if output.box_image is not None and output.box_image > len(images):
        raise ValueError(f"--box-image {output.box_image} is none of the images, of which there are {len(images)}")
    loaded, length = reading.load(), reading.request["max_new_tokens"]
    options, choice = choose_options(
        reading.sizing, loaded, images, question, reserved=length, model_name=reading.model
    )
    answer = inference.ask(
        *loaded,
        images,
        question,
        on_text=None if output.as_json else opt.show,
        image_options=options,
        box_image=None if output.box_image is None else output.box_image - 1,
        **reading.request,
    )
    found = report(answer, reading.model, question) | {"auto": choice_record(choice)}
    opt.say(json.dumps(found) if output.as_json else "")
    opt.remark(size_remark(choice))
    opt.remark(cut_remark(answer))
    if output.draw is not None:
        write_drawing(output.draw, images[answer.box_image or 0], answer)


def ask_about_each(words: list[str], reading: Reading, output: OutputArguments, many: EachArguments) -> None:
    """Ask about each image by itself and write a table; exit code 1 if a question has no answer."""
    files, questions = files_and_questions(words, many)
    opt.check_model(reading.model)
    loaded = reading.load()

    from ..inference import EachOptions

    options = EachOptions(
        image_options=reading.sizing.options,
        auto=True if reading.sizing.resolution == opt.AUTO else None,
        password=reading.pdf_password,
        max_batch=many.batch_size,
        request=reading.request,
    )
    settings = settings_of(reading.model, options)
    if answer_each(Job(files, questions, many.out, output.as_json, settings), loaded, options):
        raise typer.Exit(NOT_ALL_ANSWERED)


def check_each(page: str | None, output: OutputArguments, sizing: opt.SizingArguments) -> None:
    """Check that no option is given that has no effect with ``--each``.

    Raises:
        ValueError: Names the option.
    """
    without_effect = {
        "--page": page,
        "--draw": output.draw,
        "--box-image": output.box_image,
        "--max-ttft-ms": sizing.max_ttft_ms,
    }
    if given := [name for name, value in without_effect.items() if value is not None]:
        raise ValueError(f"{given[0]} has no effect with --each, which asks about every page by itself: leave it out")


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
        "box_image": answer.box_image,
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
