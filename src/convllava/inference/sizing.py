"""The size at which the images of a question are shown, if none is asked for."""

from collections.abc import Sequence

from ..analysis import SizeChoice, allows_auto, choose_size
from ..image_options import ImageOptions
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .request import question_message


def size_for_question(
    model: ConvLlavaForConditionalGeneration,
    processor: ConvLlavaProcessor,
    sizes: Sequence[tuple[int, int]],
    question: str,
    options: ImageOptions = ImageOptions(),  # noqa: B008, immutable
    *,
    reserved: int | None = None,
    token_limit: int | None = None,
) -> SizeChoice:
    """Choose the size at which the images of one question are shown.

    Args:
        model, processor: Result of `load_pretrained`.
        sizes: (height, width) of each image, upright.
        question: Text of the question.
        options: Options that are set already; next come those stored with the processor.
        reserved: Tokens kept for the answer; by default a part of the context.
        token_limit: Further limit on the visual tokens of one image.

    Raises:
        ValueError: There is no image, or the options contradict each other.
    """
    stored = ImageOptions(
        max_visual_tokens=processor.image_processor.max_visual_tokens,
        min_visual_tokens=processor.image_processor.min_visual_tokens,
    )
    return choose_size(
        sizes,
        model.config,
        stored.merged(options),
        text_tokens=num_text_tokens(processor, question, len(sizes)),
        reserved=reserved,
        token_limit=token_limit,
    )


def chooses_size(model: ConvLlavaForConditionalGeneration, options: ImageOptions) -> bool:
    """Return whether the size of images is chosen: for a model trained on any size, unless an option sets it."""
    return options.image_aspect_ratio is None and options.resolution is None and allows_auto(model.config)


def num_text_tokens(processor: ConvLlavaProcessor, question: str, num_images: int) -> int:
    """Return the tokens of a question's prompt without those of its images."""
    prompt = processor.render([question_message(question, num_images)], add_generation_prompt=True)
    return len(processor.tokenizer(prompt)["input_ids"]) - num_images  # each is one token here
