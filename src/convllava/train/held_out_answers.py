"""Generated answers to held-out questions, and their score."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.faults import BadSampleError
from ..data.samples import SampleSource
from ..inference import Generator
from ..metrics import METRICS, Metric, choose_metric
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .callbacks import keep_lines
from .data_sources import HeldOutSource
from .engine import Engine
from .recipe_options import ValidationAnswers
from .sample_answers import Question, questions_in, write_thumbnails

HELD_OUT_ANSWERS_FILE = "validation.jsonl"


class HeldOutAnswers:
    """Asks questions about held-out samples, each process its share, and scores the answers.

    Args:
        options: Metric and number of the questions.
        sources: The held-out samples.
        output_dir: Folder of the run; the main process writes every round into it.
        engine: Distribution over processes.

    Raises:
        ValueError: No held-out sample has a question that can be asked.
    """

    def __init__(
        self, options: ValidationAnswers, sources: Sequence[HeldOutSource], output_dir: Path, engine: Engine
    ) -> None:
        self.options, self.engine = options, engine
        self.path = output_dir / HELD_OUT_ANSWERS_FILE
        self.questions = spread_questions([one.source for one in sources], options.count, options.max_new_tokens)
        if not self.questions:
            raise ValueError("validation.answers: no held-out sample can be read; leave the answers out")
        truths = [question.truth or "" for question in self.questions]
        self.metric: Metric = choose_metric(truths) if options.metric == "auto" else METRICS[options.metric]
        self.images: list[str | None] = []

    def begin(self, last_step: int) -> None:
        """Drop the rounds that a resumed run repeats, and write the images that the report shows."""
        if self.engine.is_main:
            keep_lines(self.path, last_step)
            self.images = write_thumbnails(self.questions[: self.options.shown], self.path.parent)

    def ask(
        self, model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor, step: int, *, bfloat16: bool
    ) -> float:
        """Answer all questions with a model in evaluation mode, write the round and return the figure.

        Args:
            model: The model.
            processor: Its processor.
            step: Optimizer steps that it was trained.
            bfloat16: Whether to compute in bfloat16.
        """
        rank, processes = self.engine.rank, self.engine.num_processes
        mine = self.questions[rank::processes]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            answered = Generator(model, processor).generate(question.request for question in mine) if mine else []
        shares = self.engine.gather_lists([answer.text for answer in answered])
        texts = [shares[number % processes][number // processes] for number in range(len(self.questions))]
        pairs = [(text, question.truth or "") for text, question in zip(texts, self.questions, strict=True)]
        value = self.metric.value(pairs)
        if self.engine.is_main:
            self._write(step, value, pairs)
        return value

    def _write(self, step: int, value: float, pairs: Sequence[tuple[str, str]]) -> None:
        lines = []
        for number, ((text, truth), question) in enumerate(zip(pairs, self.questions, strict=True)):
            credit, weight = self.metric.credit(text, truth)
            image = self.images[number] if number < len(self.images) else None
            line = {"question": question.text, "answer": text, "truth": truth, "credit": credit / weight}
            lines.append(line | ({"image": image} if image else {}))
        content: dict[str, Any] = {"step": step, "metric": self.metric.name, "value": value, "answers": lines}
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")


def spread_questions(sources: Sequence[SampleSource], count: int, max_new_tokens: int) -> list[Question]:
    """Return at most ``count`` questions from samples that are spread evenly over the sources.

    Samples that cannot be used are left out.
    """
    places = [(source, index) for source in sources for index in range(len(source))]
    taken = min(count, len(places))
    chosen = [places[number * len(places) // taken] for number in range(taken)]
    found: list[list[Question]] = []
    for source, index in chosen:
        try:
            found.append(questions_in(source[index], max_new_tokens))
        except BadSampleError:
            continue
    # the first question of each sample, then the second ones, up to the count
    rounds = range(max(map(len, found), default=0))
    return [questions[turn] for turn in rounds for questions in found if turn < len(questions)][:count]
