"""``convllava chat``: several turns about the same pictures."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..inference import Generator

QUIT = "/quit"


def chat(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Pictures: path, URL or PDF.")],
    model: opt.Model = "nano",
    image_aspect_ratio: opt.ImageAspectRatio = None,
    resolution: opt.Resolution = None,
    max_visual_tokens: opt.MaxVisualTokens = None,
    max_new_tokens: opt.MaxNewTokens = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    page: opt.Page = None,
) -> None:
    """Talk about pictures: one question a line, /quit or the end of the input ends it."""
    if "-" in images:
        raise ValueError("chat reads your questions from standard input: give the pictures as files or URLs, not -")

    from .. import inference

    pictures = inference.open_images(images, page)
    generator = inference.Generator(*inference.load_pretrained(model, dtype=dtype, device=device))
    options = {
        "image_aspect_ratio": image_aspect_ratio,
        "resolution": resolution,
        "max_visual_tokens": max_visual_tokens,
        "max_new_tokens": max_new_tokens,
    }
    talk(generator, pictures, options)


def talk(generator: "Generator", pictures: list[Any], options: dict[str, Any]) -> None:
    """Answer each question with all that was said before it."""
    from ..inference import Finished, Request, question_message

    messages: list[dict[str, Any]] = []
    for question in questions():
        messages.append(question_message(question, num_images=0 if messages else len(pictures)))
        for event in generator.stream(Request(messages=messages, images=pictures, **options)):
            if isinstance(event, Finished):
                messages.append({"role": "assistant", "content": event.answer.text})
            else:
                opt.show(event.text)
        print(flush=True)


def questions() -> Iterator[str]:
    """Yield the lines that are typed or piped in, the empty ones left out, until it is enough."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        if line == QUIT:
            return
        if line:
            yield line
