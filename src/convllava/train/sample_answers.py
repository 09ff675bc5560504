"""Answers generated during training: the same questions again and again, which shows what the model has learned."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..data.batching import open_sample_image
from ..data.faults import BadSampleError
from ..data.mixture import Mixture
from ..data.samples import Sample
from ..images import open_image
from ..inference import Generator, Request
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .callbacks import Callback, Progress, keep_lines, read_log
from .recipe import Recipe
from .recipe_options import SampleAnswers

ANSWERS_FILE = "answers.jsonl"
IMAGES_FOLDER = "answer_images"

THUMBNAIL_SIDE = 320
"""Longer side in pixels of the images that the report shows next to answers."""


@dataclass(frozen=True)
class Question:
    """A question and, if it is known, its answer."""

    text: str
    request: Request
    truth: str | None = None


class AnswerSamples(Callback):
    """Answers questions every few steps and appends the answers to a JSONL file, one line per round.

    Training is not affected: greedy decoding draws no random number, and the model returns to training mode.
    """

    def __init__(
        self,
        recipe: Recipe,
        options: SampleAnswers,
        questions: Sequence[Question],
        model: ConvLlavaForConditionalGeneration,
        processor: ConvLlavaProcessor,
    ) -> None:
        self.every = options.every
        self.uses_bfloat16 = recipe.precision == "bfloat16"
        self.questions = questions
        self.model = model
        self.processor = processor
        self.path = recipe.output_dir / ANSWERS_FILE
        self.images: list[str | None] = [None] * len(questions)

    @classmethod
    def of(
        cls, recipe: Recipe, mixture: Mixture, model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor
    ) -> "list[AnswerSamples]":
        """Return the callback of a recipe with ``sample_answers``, or none."""
        options = recipe.sample_answers
        return [] if options is None else [cls(recipe, options, questions_of(options, mixture), model, processor)]

    def on_begin(self, progress: Progress) -> None:
        """Drop the rounds that a resumed run repeats; answer before the first step."""
        keep_lines(self.path, progress.step)
        self.images = write_thumbnails(self.questions, self.path.parent)
        if progress.step == 0:
            self._answer(0)

    def on_step_end(self, progress: Progress) -> None:
        """Answer if a round is due, and after the last step."""
        if progress.step % self.every == 0 or progress.step == progress.max_steps:
            self._answer(progress.step)

    def _answer(self, step: int) -> None:
        self.model.eval()
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.uses_bfloat16):
            answers = Generator(self.model, self.processor).generate(question.request for question in self.questions)
        self.model.train()
        lines = [
            {"question": question.text, "answer": answer.text, "truth": question.truth, "image": image}
            for question, answer, image in zip(self.questions, answers, self.images, strict=True)
        ]
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps({"step": step, "answers": lines}, ensure_ascii=False) + "\n")


def questions_of(options: SampleAnswers, mixture: Mixture) -> list[Question]:
    """Return the questions that the recipe names or, if it names none, those of the first samples that can be used.

    Raises:
        ValueError: An image of a question cannot be opened.
    """
    if options.prompts:
        return [
            Question(
                prompt.question,
                Request.of_question(
                    prompt.question,
                    [open_image(prompt.image)] if prompt.image else [],
                    max_new_tokens=options.max_new_tokens,
                ),
            )
            for prompt in options.prompts
        ]
    return list(islice(_questions_of_samples(mixture, options.max_new_tokens), options.count))


def _questions_of_samples(mixture: Mixture, max_new_tokens: int) -> Iterator[Question]:
    for index in range(len(mixture)):
        with suppress(BadSampleError):  # the run says what is wrong with it
            yield questions_in(mixture[index], max_new_tokens)[0]


def questions_in(sample: Sample, max_new_tokens: int) -> list[Question]:
    """Return each question of a sample, after the dialogue before it, with its true answer.

    Raises:
        BadSampleError: An image cannot be opened.
    """
    images = [open_sample_image(image, sample) for image in sample.images]
    found = []
    for number, message in enumerate(sample.messages):
        if message["role"] != "user":
            continue
        messages = sample.messages[: number + 1]
        shown = sum(part["type"] == "image" for before in messages for part in before["content"])
        request = Request(messages=messages, images=images[:shown], max_new_tokens=max_new_tokens)
        found.append(Question(_text(message), request, truth=_text(sample.messages[number + 1])))
    return found


def write_thumbnails(questions: Sequence[Question], output_dir: Path) -> list[str | None]:
    """Write the first image of each question, small, for the report.

    Returns:
        The file of each image, relative to ``output_dir``; None for a question without one.
    """
    names: list[str | None] = []
    written: dict[int, str] = {}
    for question in questions:
        source = question.request.sources[0] if question.request.sources else None
        if source is None:
            names.append(None)
            continue
        if id(source) not in written:
            image = (source if isinstance(source, Image.Image) else open_image(source)).copy()
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            folder = output_dir / IMAGES_FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            name = blake2b(image.tobytes(), digest_size=8).hexdigest()
            image.save(folder / f"{name}.png")
            written[id(source)] = f"{IMAGES_FOLDER}/{name}.png"
        names.append(written[id(source)])
    return names


def _text(message: dict[str, Any]) -> str:
    return " ".join(part["text"] for part in message["content"] if part["type"] == "text")


def read_answers(output_dir: Path) -> list[dict[str, Any]]:
    """Return the rounds of answers of a run, the first one first."""
    return read_log(output_dir / ANSWERS_FILE)
