"""Answers generated during training: the same questions again and again, which shows what the model has learned."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..data.batching import open_sample_image
from ..data.faults import BadSampleError
from ..data.mixture import Mixture
from ..data.samples import Sample
from ..images import open_image
from ..inference import Generator, Request
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .callbacks import Callback, Progress, keep_lines, read_log
from .recipe import Recipe, SampleAnswers

ANSWERS_FILE = "answers.jsonl"


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
            {"question": question.text, "answer": answer.text, "truth": question.truth}
            for question, answer in zip(self.questions, answers, strict=True)
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
            yield _first_question(mixture[index], max_new_tokens)


def _first_question(sample: Sample, max_new_tokens: int) -> Question:
    """Return a sample's conversation up to its first answer, which is the truth."""
    asked = next(number for number, message in enumerate(sample.messages) if message["role"] == "user")
    messages = sample.messages[: asked + 1]
    num_images = sum(part["type"] == "image" for message in messages for part in message["content"])
    images = [open_sample_image(image, sample) for image in sample.images[:num_images]]
    text = _text(messages[-1])
    request = Request(messages=messages, images=images, max_new_tokens=max_new_tokens)
    return Question(text, request, truth=_text(sample.messages[asked + 1]))


def _text(message: dict[str, Any]) -> str:
    return " ".join(part["text"] for part in message["content"] if part["type"] == "text")


def read_answers(output_dir: Path) -> list[dict[str, Any]]:
    """Return the rounds of answers of a run, the first one first."""
    return read_log(output_dir / ANSWERS_FILE)
