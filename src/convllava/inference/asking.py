"""A question about one image or several."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..images import upright_size
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .generator import Generator
from .images import open_images
from .request import Answer, Request
from .sizing import chooses_size, size_for_question


def ask(
    model: ConvLlavaForConditionalGeneration,
    processor: ConvLlavaProcessor,
    images: Any,
    question: str,
    *,
    page: int | str | None = None,
    password: str | None = None,
    on_text: Callable[[str], None] | None = None,
    **options: Any,
) -> Answer:
    """Answer a question about images.

    A model that was trained on images of any size is shown them at their own size, within the sizes of its training and
    the context, unless an option says otherwise; `Answer.image_sizes` has the result.

    Args:
        model, processor: Result of `load_pretrained`.
        images: One image or a list, by path, URL or loaded; an empty list for a question without images.
        question: Text of the question.
        page: Page of a PDF among the images, counted from 1; "2-5" for several.
        password: Password of a locked PDF among them.
        on_text: Called with each piece of the answer as it comes.
        options: Fields of `Request` (image_options, max_new_tokens, temperature, top_p, top_k, min_p, seed, stop,
            repetition_penalty, no_repeat_ngram_size, no_repeat_ngram_window, stop_on_repetition), a `system` message,
            and image options by name (image_aspect_ratio, resolution, max_visual_tokens).

    Returns:
        Text, boxes in pixels of the image that they are about (upright), visual tokens, grids and timings.

    Raises:
        ValueError: The question is empty, an image cannot be opened, an option is wrong, or the context is too small.
    """
    if not question.strip():
        raise ValueError("there is no question about the image: say what you want to know")
    lazily = processor.image_processor.preprocessing == "fast"
    opened = open_images(_as_list(images), page, lazily=lazily, password=password)
    request = Request.of_question(question, opened, **options)
    if request.images and chooses_size(model, request.image_options):
        sizes = [upright_size(image) for image in request.images]
        choice = size_for_question(
            model, processor, sizes, question, request.image_options, reserved=request.max_new_tokens
        )
        request = replace(request, image_options=request.image_options.merged(choice.options))
    return Generator(model, processor).answer(request, on_text)


def _as_list(images: Any) -> Sequence[Any]:
    one = isinstance(images, (str, Path)) or not isinstance(images, Sequence)
    return [images] if one else images
