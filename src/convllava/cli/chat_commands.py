"""What can be said to ``convllava chat`` besides questions: /image, /budget, /reset, /save."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import options as opt
from .terminal_images import show_image

Message = dict[str, Any]


class Dialogue:
    """Images, what was said about them, and how they are shown to the model."""

    def __init__(self, names: Sequence[str], images: Sequence[Any], options: dict[str, Any]) -> None:
        self.names, self.images, self.options = list(names), list(images), dict(options)
        self.messages: list[Message] = []
        self._num_said = 0

    def with_question(self, question: str) -> list[Message]:
        """Return all that was said and a question, in front of it the images that are new."""
        from ..inference import question_message

        return [*self.messages, question_message(question, num_images=len(self.images) - self._num_said)]

    def answered(self, messages: list[Message], answer: str) -> None:
        """Take a question and its answer into the dialogue."""
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        self._num_said = len(self.images)

    def add(self, name: str) -> None:
        """Add an image to the next question."""
        from ..inference import open_image

        self.images.append(open_image(name))
        self.names.append(name)
        show_image(self.images[-1])

    def reset(self) -> None:
        """Forget what was said; the images stay."""
        self.messages, self._num_said = [], 0

    def show_images(self) -> None:
        """Show the images in terminals that can."""
        for image in self.images:
            show_image(image)

    def save(self, path: Path) -> None:
        """Write the dialogue as JSON, all of it or nothing.

        Raises:
            ValueError: There is such a file already.
        """
        if path.exists():
            raise ValueError(f"{path} exists already: give another name")
        content = {"images": self.names, "options": self.options, "messages": self.messages}
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            os.link(unfinished, path)  # unlike a renaming, it does not replace what somebody else wrote meanwhile
        finally:
            unfinished.unlink(missing_ok=True)


def obey(line: str, dialogue: Dialogue) -> None:
    """Do what a line with a slash says; a mistake is told, and the dialogue goes on."""
    name, _, argument = line.partition(" ")
    try:
        if name not in COMMANDS:
            raise ValueError(f"there is no command {name}: {', '.join([*COMMANDS, '/quit'])}")
        print(COMMANDS[name](dialogue, argument.strip()), flush=True)
    except (ValueError, OSError) as error:
        print("error:", opt.printable(" ".join(str(error).split())), file=sys.stderr, flush=True)


def _image(dialogue: Dialogue, argument: str) -> str:
    if not argument or argument == "-":
        raise ValueError("/image wants a path or a URL")
    dialogue.add(argument)
    image = dialogue.images[-1]
    return f"image {len(dialogue.images)}, {image.width}x{image.height} pixels, goes with the next question"


def _budget(dialogue: Dialogue, argument: str) -> str:
    if argument == "off":
        dialogue.options["max_visual_tokens"] = None
        return "images may have any number of visual tokens"
    if not argument.isascii() or not argument.isdigit() or int(argument) < 1:
        raise ValueError(f"/budget wants a number of visual tokens, or off, got {argument!r}")
    dialogue.options["max_visual_tokens"] = int(argument)
    return f"from now on an image has at most {int(argument)} visual tokens"


def _reset(dialogue: Dialogue, argument: str) -> str:
    dialogue.reset()
    return "a new dialogue about the same images"


def _save(dialogue: Dialogue, argument: str) -> str:
    if not argument:
        raise ValueError("/save wants the name of a file")
    dialogue.save(Path(argument))
    return f"written to {argument}"


def _help(dialogue: Dialogue, argument: str) -> str:
    return HELP


HELP = """\
/image PATH    adds an image, by path or URL, to the next question
/budget N      at most N visual tokens an image from now on; /budget off: no limit
/reset         begins a new dialogue about the same images
/save FILE     writes the dialogue as JSON
/quit          ends it"""

COMMANDS: dict[str, Callable[[Dialogue, str], str]] = {
    "/image": _image,
    "/budget": _budget,
    "/reset": _reset,
    "/save": _save,
    "/help": _help,
}
