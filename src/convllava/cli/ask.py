"""``convllava ask``: one question about one image or several."""

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .showing import Wish, decide

if TYPE_CHECKING:
    from ..inference import Answer

_USAGE = 'convllava ask IMAGE [IMAGE...] "QUESTION"'


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar='IMAGE... "QUESTION"',
            help="Images (path, URL, - for standard input, PDF), then the question.",
        ),
    ],
    model: opt.Model = "nano",
    image_aspect_ratio: opt.ImageAspectRatio = None,
    resolution: opt.ResolutionOrAuto = None,
    max_visual_tokens: opt.MaxVisualTokens = None,
    max_ttft_ms: opt.MaxFirstTokenMs = None,
    max_new_tokens: opt.MaxNewTokens = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    adapter: opt.Adapter = None,
    quantize: opt.Quantize = None,
    fast: opt.Fast = False,
    preprocessing: opt.Preprocessing = None,
    page: opt.Page = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Write the first image with the answer's boxes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: answer, cost, timings.")] = False,
) -> None:
    """Ask a question about images."""
    sources, question = split_question(words)
    wish = Wish(image_aspect_ratio, resolution, max_visual_tokens, max_ttft_ms)
    if draw is not None:
        check_drawing(draw, sources)

    from .. import inference

    # an image that is drawn on has to stay whole
    images = inference.open_images(sources, page, lazily=preprocessing == "fast" and draw is None)
    loaded = inference.load_pretrained(
        model,
        dtype=dtype,
        device=device,
        adapter=adapter,
        quantize=quantize,
        fast=fast,
        fallback_resolution=wish.pixels,
    )
    if preprocessing is not None:
        loaded[1].image_processor.preprocessing = preprocessing
    showing = decide(wish, loaded, images, question, reserved=max_new_tokens, model_name=model)
    on_text = None if as_json else opt.show
    options = showing.options | {"max_new_tokens": max_new_tokens}
    answer = inference.ask(*loaded, images, question, on_text=on_text, **options)
    print(json.dumps(report(answer, model, question) | {"auto": showing.report()}) if as_json else "")
    opt.remark(showing.remark)
    if answer.finish_reason == "length":
        print(f"the answer was cut at {len(answer.token_ids)} tokens (--max-new-tokens)", file=sys.stderr)
    if draw is not None:
        write_drawing(draw, images[0], answer)


def split_question(words: list[str]) -> tuple[list[str], str]:
    """Part what stands on the command line into images and the question, which comes last.

    Raises:
        ValueError: One of the two is missing.
    """
    *sources, question = words
    if is_source(question):
        raise ValueError(f"no question: the last word {question!r} is an image; {_USAGE}")
    if not sources:
        raise ValueError(f"an image or a question is missing, there is only {question!r}: {_USAGE}")
    if not question.strip():
        raise ValueError(f"the question is empty: {_USAGE}")
    return sources, question


def is_source(word: str) -> bool:
    """Tell whether a word names an image: an existing file, a URL or standard input."""
    return word == "-" or word.startswith(("http://", "https://")) or os.path.exists(word)


def report(answer: "Answer", model: str, question: str) -> dict[str, Any]:
    """Return what `--json` prints."""
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
    """Check, before anything costs time, that a drawing can be written to `path`.

    Raises:
        ValueError: It would replace an image that is asked about, or it cannot be written.
    """
    if any(os.path.exists(source) and path.exists() and path.samefile(source) for source in sources):
        raise ValueError(f"--draw {path} would overwrite the image itself: give another name")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"--draw {path}: the name must end in .png, .jpg or .webp")
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"--draw {path} cannot be written: {path.parent} must be a directory, {path.name} a file")


def write_drawing(path: Path, image: Any, answer: "Answer") -> None:
    """Write a copy of the image with the answer's boxes, all of it or nothing."""
    from ..inference import draw_boxes

    if not answer.boxes:
        print(f"the answer has no box: {path} was not written", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        draw_boxes(image, answer.boxes).save(unfinished)
        unfinished.replace(path)
