"""The same questions about each of many images, in batches: the next images are prepared while others are answered."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..image_options import ImageOptions
from ..images import upright_size
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .generator import MAX_BATCH, Generator
from .images import num_pages, open_images
from .prompt import Prompt, prompt_of
from .request import Answer, Failed, Finished, Request
from .sizing import chooses_size, size_for_question


@dataclass(frozen=True)
class ImageOf:
    """An image to ask about.

    Attributes:
        source: Path or URL of its file, or a loaded image.
        page: Page or frame of the file, counted from 1; None for a file with one.
    """

    source: Any
    page: int | None = None


@dataclass(frozen=True)
class AnswerAbout:
    """The answer to one question about one image, or what kept it from being answered.

    Attributes:
        image: The image.
        question: Text of the question.
        answer: The answer; None if there is none.
        error: What is wrong with the image or the request; None if there is an answer.
    """

    image: ImageOf
    question: str
    answer: Answer | None = None
    error: str | None = None


@dataclass(frozen=True)
class EachOptions:
    """Options of every question.

    Attributes:
        image_options: Size at which images are shown; by default chosen for each as `ask` does.
        auto: Whether the size is chosen; None leaves it to the model, as `ask` does.
        password: Password of locked PDFs.
        max_batch: Maximum questions decoded at a time.
        request: Further arguments of `Request.of_question`, such as max_new_tokens, system or json_schema.
    """

    image_options: ImageOptions = field(default_factory=ImageOptions)
    auto: bool | None = None
    password: str | None = None
    max_batch: int = MAX_BATCH
    request: dict[str, Any] = field(default_factory=dict)


def pages_of(source: str | Path, *, password: str | None = None) -> list[ImageOf]:
    """Return each page of a PDF and each frame of a TIFF as an image to ask about, or the only image of a file.

    A file that cannot be read is returned too; `ask_each` says what is wrong with it.
    """
    try:
        number = num_pages(source, password=password)
    except (ValueError, OSError):
        number = 1
    return [ImageOf(source, page) for page in range(1, number + 1)] if number > 1 else [ImageOf(source)]


def ask_each(
    model: ConvLlavaForConditionalGeneration,
    processor: ConvLlavaProcessor,
    images: Iterable[ImageOf],
    questions: Sequence[str],
    options: EachOptions = EachOptions(),
    *,
    is_done: Callable[[ImageOf, str], bool] = lambda image, question: False,
) -> Iterator[AnswerAbout]:
    """Ask every question about every image and yield the answers as they come; an unusable image is no end.

    Images are taken as they are needed, so that any number of them needs little memory. Each is encoded once for all
    questions, and images of equal shape are encoded together.

    Args:
        model, processor: Result of `load_pretrained`.
        images: Images, see `pages_of`.
        questions: Questions about each image.
        options: Options of every question.
        is_done: Whether a question about an image needs no answer any more.

    Raises:
        ValueError: There is no question, or one is empty.
    """
    if not questions:
        raise ValueError("there is no question about the images: say what you want to know")
    generator = Generator(model, processor, options.max_batch)
    prepare = _Preparer(model, processor, questions, options, is_done)
    source, window = iter(images), options.max_batch  # prepared ahead, and waiting for others of their shape
    running: dict[int, _Prepared] = {}
    ready: list[_Prepared] = []
    # one thread, in which alone PDFs are rendered, since pypdfium2 is not thread-safe
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(_next, source, prepare) for _ in range(window))
        try:
            while pending or ready or running:
                while pending and len(ready) < window and (pending[0].done() or not (ready or running)):
                    if (found := pending.popleft().result()) is None:
                        pending.clear()
                        break
                    pending.append(pool.submit(_next, source, prepare))
                    yield from (item for item in found if isinstance(item, AnswerAbout))
                    ready += [item for item in found if isinstance(item, _Prepared)]
                free = options.max_batch - len(running)
                if free >= options.max_batch // 2 or not running:
                    for item in _take_alike(ready, free):
                        running[generator.submit(item.request, item.prompt)] = item
                yield from _answers(generator, running)
        finally:
            pool.shutdown(cancel_futures=True)


def _next(images: Iterator[ImageOf], prepare: "_Preparer") -> "list[_Prepared | AnswerAbout] | None":
    """Return the requests about the next image, or None after the last."""
    image = next(images, None)
    return None if image is None else prepare(image)


def _take_alike(ready: "list[_Prepared]", count: int) -> "list[_Prepared]":
    """Remove and return requests of one shape, that of the oldest, before others."""
    if ready:
        shape = ready[0].shape
        ready.sort(key=lambda item: item.shape != shape)  # stable: otherwise as they came
    taken = ready[:count]
    del ready[:count]
    return taken


@dataclass(frozen=True)
class _Prepared:
    """A request whose image is opened and resized."""

    image: ImageOf
    question: str
    request: Request
    prompt: Prompt

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) at which the image is shown."""
        return self.prompt.image_sizes[0]


def _answers(generator: Generator, running: dict[int, _Prepared]) -> Iterator[AnswerAbout]:
    """Take one step and yield what it has finished."""
    for event in generator.step() if generator.is_busy else ():
        if isinstance(event, Finished):
            item = running.pop(event.request_id)
            yield AnswerAbout(item.image, item.question, answer=event.answer)
        elif isinstance(event, Failed):
            item = running.pop(event.request_id)
            yield AnswerAbout(item.image, item.question, error=" ".join(str(event.error).split()))


def _request_of(question: str, options: EachOptions) -> Request:
    """Return the request of a question about one image, which is prepared apart from it."""
    request = Request.of_question(question, [None], **options.request)
    return replace(request, images=())


class _Preparer:
    """Opens and resizes an image and makes the requests about it."""

    def __init__(
        self,
        model: ConvLlavaForConditionalGeneration,
        processor: ConvLlavaProcessor,
        questions: Sequence[str],
        options: EachOptions,
        is_done: Callable[[ImageOf, str], bool],
    ) -> None:
        self._model, self._processor, self._options, self._is_done = model, processor, options, is_done
        self._requests = {question: _request_of(question, options) for question in questions}
        self._context = model.config.get_text_config(decoder=True).max_position_embeddings
        self._longest = max(questions, key=len)  # one size for all questions: the image is encoded once

    def __call__(self, image: ImageOf) -> list["_Prepared | AnswerAbout"]:
        """Return the requests about an image, or for each of them why there is none."""
        questions = [question for question in self._requests if not self._is_done(image, question)]
        if not questions:
            return []
        try:
            return self._prepare(image, questions)
        except (ValueError, OSError) as error:
            return [AnswerAbout(image, question, error=" ".join(str(error).split())) for question in questions]

    def _prepare(self, image: ImageOf, questions: Sequence[str]) -> list["_Prepared | AnswerAbout"]:
        lazily = self._processor.image_processor.preprocessing == "fast"
        opened = open_images([image.source], image.page, lazily=lazily, password=self._options.password)[0]
        size = upright_size(opened)
        shown = self._image_options(opened)
        pixels = self._processor.image_processor.prepare_each([opened], **shown.given())
        prepared: list[_Prepared | AnswerAbout] = []
        for question in questions:
            request = self._requests[question]
            try:
                prompt = prompt_of(request, pixels, [size], self._processor, self._context)
            except ValueError as error:  # this question is too long, others may fit
                prepared.append(AnswerAbout(image, question, error=str(error)))
            else:
                prepared.append(_Prepared(image, question, request, prompt))
        return prepared

    def _image_options(self, opened: Image.Image) -> ImageOptions:
        options = self._options.image_options
        if not (chooses_size(self._model, options) if self._options.auto is None else self._options.auto):
            return options
        choice = size_for_question(
            self._model,
            self._processor,
            [upright_size(opened)],
            self._longest,
            options,
            reserved=self._options.request.get("max_new_tokens"),
        )
        return options.merged(choice.options)
