"""Prompts as lists of texts and images, and the instructions that several benchmarks share.

A prompt is a list of parts: a text, or the index of an image (from 0). Three profiles name the source of its texts:
``paper`` (VLMEvalKit of April 2024), ``current`` (VLMEvalKit of August 2026; its texts, but not its blanks around an
image, where LLaVA was trained with a line break) and ``llava`` (LLaVA's own evaluation).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

PromptProfile = Literal["paper", "current", "llava"]
PROMPT_PROFILES: tuple[PromptProfile, ...] = ("paper", "current", "llava")

PromptPart = str | int
"""A text, or the index of an image."""

SINGLE_WORD = "Answer the question using a single word or phrase."
SHORT_WORDS = "Please try to answer the question with short words or phrases if possible\n."
"""VLMEvalKit of the paper's time really has the period on a line by itself."""


def images_first(text: str, num_images: int) -> list[PromptPart]:
    """Return a prompt with all images before the text."""
    return [*range(num_images), text]


def short_answer_text(question: str, profile: PromptProfile) -> str:
    """Return a question with the request for a short answer (TextVQA, DocVQA)."""
    return f"{question}\n{SHORT_WORDS if profile == 'paper' else SINGLE_WORD}"


def user_message(prompt: Sequence[PromptPart]) -> dict[str, Any]:
    """Return a prompt as a message of the user.

    Chat templates break the line after images that begin a message; the break after later images is added here.
    """
    content: list[dict[str, str]] = []
    after_image = False
    for part in prompt:
        if isinstance(part, int):
            if after_image:
                content.append({"type": "text", "text": "\n"})
            content.append({"type": "image"})
            after_image = any(previous["type"] == "text" for previous in content)
        elif part or after_image:
            content.append({"type": "text", "text": "\n" * after_image + part})
            after_image = False
    return {"role": "user", "content": content}


def images_of(prompt: Sequence[PromptPart]) -> list[int]:
    """Return the indices of a prompt's images, in their order in the prompt."""
    return [part for part in prompt if isinstance(part, int)]


def question_of(row: Mapping[str, Any]) -> str:
    """Return the text that identifies a row's question to a reader; a referring expression in grounding."""
    return str(row.get("question", row.get("sent", "")))


def answer_of(row: Mapping[str, Any]) -> str:
    """Return the reference answer of a row as text; a box in grounding."""
    return str(row.get("answer", row.get("bbox", "")))
