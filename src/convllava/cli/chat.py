"""``convllava chat``: several turns about the same images."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt
from .chat_commands import Dialogue, obey
from .showing import Wish, decide

if TYPE_CHECKING:
    from ..inference import Generator

QUIT = "/quit"

MOST_LINES = 1000
"""Of earlier chats, that the arrow keys bring back."""

PREFIX_CACHE_BYTES = 8 << 30
"""Keys and values of the dialogue are kept whole, so that a turn costs only what is new in it; a full context of a 7B
model has 2 GiB in bfloat16, and nothing is taken before it is needed."""


def chat(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images: path, URL or PDF.")],
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
    page: opt.Page = None,
) -> None:
    """Talk about images: one question a line; /help lists commands, /quit or the end of the input ends it."""
    if "-" in images:
        raise ValueError("chat reads your questions from standard input: give the images as files or URLs, not -")

    wish = Wish(image_aspect_ratio, resolution, max_visual_tokens, max_ttft_ms)

    from .. import inference
    from ..analysis import context_of

    loaded_images = inference.open_images(images, page)
    loaded = inference.load_pretrained(
        model,
        dtype=dtype,
        device=device,
        adapter=adapter,
        quantize=quantize,
        fast=fast,
        fallback_resolution=wish.pixels,
    )
    room = context_of(loaded[0].config) // 2  # for what will be said
    showing = decide(wish, loaded, loaded_images, "?", reserved=room, model_name=model)
    opt.remark(showing.remark)
    generator = inference.Generator(*loaded, max_batch=1, prefix_cache_bytes=PREFIX_CACHE_BYTES)
    dialogue = Dialogue(images, loaded_images, showing.options | {"max_new_tokens": max_new_tokens})
    with remembered_lines():
        talk(generator, dialogue)


def talk(generator: "Generator", dialogue: Dialogue) -> None:
    """Answer each question with all that was said before it."""
    from ..inference import Finished, Request, TextDelta

    dialogue.show_images()
    for line in questions():
        if line.startswith("/"):
            obey(line, dialogue)
            continue
        messages = dialogue.with_question(line)
        for event in generator.stream(Request(messages=messages, images=dialogue.images, **dialogue.options)):
            if isinstance(event, Finished):
                dialogue.answered(messages, event.answer.text)
            elif isinstance(event, TextDelta):
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


@contextmanager
def remembered_lines() -> Iterator[None]:
    """At a terminal, let the arrow keys edit lines and bring back earlier ones, also of earlier chats."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    path = opt.state_file("chat_history")
    if path.is_file():
        readline.read_history_file(path)
    readline.set_history_length(MOST_LINES)
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(path)
