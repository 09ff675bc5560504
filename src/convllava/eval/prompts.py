"""What a question looks like to the model: the texts of VLMEvalKit and of LLaVA.

A prompt is a list of parts: a text, or the number of an image (from 0). Profiles: ``paper`` (VLMEvalKit of April
2024), ``current`` (VLMEvalKit today; its texts, not its wrapping, which puts blanks where LLaVA was trained with a
line break) and ``llava`` (LLaVA's own evaluation).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

PromptProfile = Literal["paper", "current", "llava"]
PROMPT_PROFILES: tuple[PromptProfile, ...] = ("paper", "current", "llava")

Part = str | int
Row = Mapping[str, Any]

OPTION_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

CHOOSE = "Answer with the option's letter from the given choices directly."
ANSWER_DIRECTLY = "Answer the question directly."
SINGLE_WORD = "Answer the question using a single word or phrase."
SHORT_WORDS = "Please try to answer the question with short words or phrases if possible\n."
"""The full stop really stands on a line of its own in the kit that the paper's figures come from."""
LOCATE = "Please provide the bounding box coordinate of the region this sentence describes: {sentence}."

_CHOOSE_IN_CHINESE = "请直接回答选项字母。"
_ANSWER_IN_CHINESE = "请直接回答问题。"
_CJK_IDEOGRAPH = re.compile(r"[\u4e00-\u9fff]")
_YES_OR_NO = " Please answer yes or no."
_IMAGE_TAG = re.compile(r"<image (\d)>")


def options_of(row: Row) -> dict[str, str]:
    """Return the options that a row has, by letter."""
    return {letter: str(row[letter]) for letter in OPTION_LETTERS if row.get(letter) is not None}


def choice_text(row: Row, profile: PromptProfile) -> str:
    """Return a multiple-choice question with its hint, options and instruction; nothing is trimmed."""
    hint = f"{row['hint']}\n" if row.get("hint") is not None else ""
    options = options_of(row)
    text = hint + str(row["question"]) + "".join(f"\n{letter}. {option}" for letter, option in options.items())
    return f"{text}\n{_choice_instruction(text, bool(options), profile)}"


def yes_no_text(row: Row, profile: PromptProfile, *, drops_request: bool) -> str:
    """Return a yes/no question as it is; ``llava`` replaces the request at the end of MME's (``drops_request``)."""
    question = str(row["question"])
    if profile != "llava":
        return question
    return f"{question.removesuffix(_YES_OR_NO) if drops_request else question}\n{SINGLE_WORD}"


def short_answer_text(row: Row, profile: PromptProfile, ocr_tokens: Sequence[str] | None = None) -> str:
    """Return a question for a short answer, with OCR tokens where they are to be shown (LLaVA's TextVQA)."""
    question = str(row["question"])
    if ocr_tokens is not None:
        question += "\nReference OCR token: " + ", ".join(ocr_tokens)
    return f"{question}\n{SHORT_WORDS if profile == 'paper' else SINGLE_WORD}"


def locate_text(sentence: str) -> str:
    """Return the question of the grounding script for one sentence."""
    return LOCATE.format(sentence=sentence)


def images_first(text: str, count: int) -> list[Part]:
    """Return a prompt with all images before the text."""
    return [*range(count), text]


def interleaved(text: str, count: int) -> list[Part]:
    """Return a prompt with image k in place of each ``<image k>``, shown as often as it is mentioned.

    Raises:
        ValueError: An image is mentioned that the question does not have.
    """
    pieces = _IMAGE_TAG.split(text)  # text, number, text, number, ..., text
    parts: list[Part] = []
    for position, piece in enumerate(pieces):
        if position % 2 == 0:
            parts.append(piece)
        elif not 1 <= int(piece) <= count:
            raise ValueError(f"the text mentions <image {piece}> but there are {count} images")
        else:
            parts.append(int(piece) - 1)
    return parts


def user_message(parts: Sequence[Part]) -> dict[str, Any]:
    """Return a prompt as the user's turn.

    Chat templates break the line behind images that open a turn; behind the others it is written here.
    """
    content: list[dict[str, str]] = []
    after_image = False
    for part in parts:
        if isinstance(part, int):
            if after_image:
                content.append({"type": "text", "text": "\n"})
            content.append({"type": "image"})
            after_image = any(own["type"] == "text" for own in content)
        elif part or after_image:
            content.append({"type": "text", "text": "\n" * after_image + part})
            after_image = False
    return {"role": "user", "content": content}


def images_of(parts: Sequence[Part]) -> list[int]:
    """Return the numbers of the images of a prompt in the order in which they are shown."""
    return [part for part in parts if isinstance(part, int)]


def _choice_instruction(text: str, has_options: bool, profile: PromptProfile) -> str:
    if profile == "llava":
        return CHOOSE if has_options else SINGLE_WORD
    if _CJK_IDEOGRAPH.search(text):
        return _CHOOSE_IN_CHINESE if has_options else _ANSWER_IN_CHINESE
    return CHOOSE if has_options else ANSWER_DIRECTLY
