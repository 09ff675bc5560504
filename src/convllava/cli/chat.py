"""``convllava chat``: several turns about the same images."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..constants import Message
from ..image_options import ImageOptions
from ..support import is_encodable, write_json
from . import options as opt
from .generation import GenerationArguments, System, cut_remark
from .sizing import choose_options, size_remark

if TYPE_CHECKING:
    from ..inference import Generator, Request

QUIT = "/quit"

HISTORY_LENGTH = 1000
"""Number of earlier lines that the arrow keys bring back."""

PREFIX_CACHE_BYTES = 8 << 30
"""Limit of the prefix cache, which keeps keys and values of the dialogue so that a turn costs its new tokens only; a
full context of a 7B model takes 2 GiB in bfloat16. Memory is allocated as it is needed."""


@opt.expand_settings
def chat(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images: path, URL or PDF.")],
    model: opt.Model = "nano",
    *,
    sizing: opt.SizingArguments,
    generation: GenerationArguments,
    system: System = None,
    loading: opt.LoadArguments,
    page: opt.Page = None,
    pdf_password: opt.PdfPassword = None,
) -> None:
    """Talk about images, one question a line; /help lists the commands, /quit or Ctrl+D ends the chat."""
    if "-" in images:
        raise ValueError("chat reads questions from standard input: give images as files or URLs instead of -")
    decoding = generation.given()

    from .. import inference

    opt.check_model(model)
    opened = inference.open_images(images, page, password=pdf_password)
    loaded = loading.load(model, resolution=sizing.pixels)

    from ..analysis import context_of

    for_dialogue = context_of(loaded[0].config) // 2
    options, choice = choose_options(sizing, loaded, opened, "?", reserved=for_dialogue, model_name=model)
    opt.remark(size_remark(choice))
    generator = inference.Generator(*loaded, max_batch=1, prefix_cache_bytes=PREFIX_CACHE_BYTES)
    dialogue = Dialogue(images, opened, options, decoding, system)
    with input_history():
        talk(generator, dialogue)


def talk(generator: "Generator", dialogue: "Dialogue") -> None:
    """Answer each question with the whole dialogue before it as context."""
    from ..inference import Finished, TextDelta

    for line in questions():
        if line.startswith("/"):
            run_command(line, dialogue)
            continue
        messages, remark = dialogue.with_question(line), ""
        for event in generator.stream(dialogue.request(messages)):
            if isinstance(event, Finished):
                dialogue.answered(messages, event.answer.text)
                remark = cut_remark(event.answer) if event.answer.finish_reason == "repetition" else ""
            elif isinstance(event, TextDelta):
                opt.show(event.text)
        opt.say("")
        opt.remark(remark)


def questions() -> Iterator[str]:
    """Yield the lines that are typed or piped in, without empty ones, until /quit or the end of the input.

    A question with bytes that are not UTF-8 is reported and left out; names of files in commands may have them.
    """
    prompt = "> " if sys.stdin.isatty() else ""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        if line == QUIT:
            return
        if not line.startswith("/") and not is_encodable(line):
            opt.remark(f"error: {line} is not {sys.stdin.encoding} text: type the question again")
        elif line:
            yield line


@contextmanager
def input_history() -> Iterator[None]:
    """At a terminal, let the arrow keys edit the line and bring back lines of this chat and earlier ones."""
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
    readline.set_history_length(HISTORY_LENGTH)
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(path)


class Dialogue:
    """Images, the messages about them, and the options of the next request."""

    def __init__(
        self,
        names: Sequence[str],
        images: Sequence[Any],
        options: ImageOptions,
        decoding: dict[str, Any],
        system: str | None = None,
    ) -> None:
        from ..inference.request import system_message

        self.names, self.images, self.image_options = list(names), list(images), options
        self.decoding, self.system = decoding, system_message(system)
        self.messages: list[Message] = []
        self._num_shown = 0

    def with_question(self, question: str) -> list[Message]:
        """Return the messages so far and a question, preceded by the images that are new."""
        from ..inference import question_message

        return [*self.messages, question_message(question, num_images=len(self.images) - self._num_shown)]

    def request(self, messages: list[Message]) -> "Request":
        """Return the request that sends messages, with the options as they are now."""
        from ..inference import Request

        return Request(
            messages=[*self.system, *messages], images=self.images, image_options=self.image_options, **self.decoding
        )

    def answered(self, messages: list[Message], answer: str) -> None:
        """Add an answer to the messages that it was given to."""
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        self._num_shown = len(self.images)

    def add(self, name: str) -> None:
        """Add an image to the next question."""
        from ..inference import open_image

        self.images.append(open_image(name))
        self.names.append(name)

    def reset(self) -> None:
        """Forget the messages and keep the images."""
        self.messages, self._num_shown = [], 0

    def save(self, path: Path) -> None:
        """Write the dialogue as JSON, atomically.

        Raises:
            ValueError: The file exists already.
        """
        if path.exists():
            raise ValueError(f"{path} exists already: give another name")
        options = self.image_options.given() | {"max_new_tokens": None} | self.decoding
        messages = [*self.system, *self.messages]
        write_json(path, {"images": self.names, "options": options, "messages": messages})


def run_command(line: str, dialogue: Dialogue) -> None:
    """Run a line that begins with a slash; an error is printed, and the dialogue continues."""
    name, _, argument = line.partition(" ")
    try:
        if name not in COMMANDS:
            raise ValueError(f"unknown command {name}: one of {', '.join([*COMMANDS, '/quit'])}")
        opt.say(COMMANDS[name](dialogue, argument.strip()))
    except (ValueError, OSError) as error:
        opt.remark(f"error: {' '.join(str(error).split())}")


def _image(dialogue: Dialogue, argument: str) -> str:
    if not argument or argument == "-":
        raise ValueError("/image needs a path or a URL")
    dialogue.add(argument)
    image = dialogue.images[-1]
    return f"image {len(dialogue.images)}, {image.width}x{image.height} pixels, is sent with the next question"


def _budget(dialogue: Dialogue, argument: str) -> str:
    if argument == "off":
        dialogue.image_options = replace(dialogue.image_options, max_visual_tokens=None)
        return "no limit on visual tokens per image from now on"
    if not argument.isascii() or not argument.isdigit() or int(argument) < 1:
        raise ValueError(f"/budget needs a number of visual tokens or off, got {argument!r}")
    dialogue.image_options = replace(dialogue.image_options, max_visual_tokens=int(argument))
    return f"at most {int(argument)} visual tokens per image from now on"


def _reset(dialogue: Dialogue, argument: str) -> str:
    dialogue.reset()
    return "new dialogue about the same images"


def _save(dialogue: Dialogue, argument: str) -> str:
    if not argument:
        raise ValueError("/save needs the name of a file")
    dialogue.save(Path(argument))
    return f"wrote {argument}"


def _help(dialogue: Dialogue, argument: str) -> str:
    return HELP


HELP = """\
/image PATH    add an image (path or URL) to the next question
/budget N      limit each image to N visual tokens from now on; /budget off: no limit
/reset         start a new dialogue about the same images
/save FILE     write the dialogue as JSON
/quit          end the chat"""

COMMANDS: dict[str, Callable[[Dialogue, str], str]] = {
    "/image": _image,
    "/budget": _budget,
    "/reset": _reset,
    "/save": _save,
    "/help": _help,
}
