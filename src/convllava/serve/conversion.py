"""Conversion of a request body to a request to the model: messages, images, options."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from PIL import Image

from ..analysis import SHARE_FOR_ANSWERS, choose_size, context_of
from ..image_options import ImageOptions
from ..images import is_data_url
from ..inference import ContextOverflowError, ConvLlavaProcessor, Generator, Prompt, Request, prompt_of
from .errors import ApiError
from .schema import AssistantMessage, ChatRequest, ImageCost, ImagePart, SystemMessage, UserMessage
from .settings import Settings

TEMPLATE_TOKENS = 64
"""Upper bound on the tokens of the prompt format around the text."""

MOST_CHARACTERS_PER_TOKEN = 32
"""Upper bound on the average length of a token; a longer text is rejected without tokenizing it."""

LOW_DETAIL_TOKENS = 64
"""Limit of `detail: low`, which is 512 x 512 pixels with OpenAI: 8 x 8 visual tokens in any shape."""


class ImageSource(NamedTuple):
    """An image of a request: its URL, or its data URL as bytes of JSON, and its place in the body for messages."""

    url: str
    data_url: memoryview | None
    detail: str | None
    param: str


def place_in_messages(turn: int, part: int) -> str:
    """Return the place of an image in the body of a chat request."""
    return f"messages[{turn}].content[{part}].image_url.url"


def image_sources(
    chat: ChatRequest, data_urls: Mapping[str, memoryview], place: Callable[[int, int], str]
) -> Iterator[ImageSource]:
    """Yield the images of a dialogue in reading order.

    Args:
        chat: The client's request.
        data_urls: Data URLs by the names that replace them in the request.
        place: Place in the client's body of an image, by the indices of its message and part.
    """
    for turn, message in enumerate(chat.messages):
        parts = message.content if isinstance(message.content, list) else []
        for index, part in enumerate(parts):
            if isinstance(part, ImagePart):
                url = part.image_url.url
                data_url = data_urls.get(url)
                if data_url is None and is_data_url(url):  # written with escapes, so that it was not recognized
                    data_url = memoryview(json.dumps(url).encode()[1:-1])
                yield ImageSource(url, data_url, part.image_url.detail, place(turn, index))


def check_sources(sources: Sequence[ImageSource], settings: Settings) -> None:
    """Reject too many images, and URLs where they are not allowed, before an image is decoded."""
    if len(sources) > settings.max_images:
        raise ApiError(400, f"{len(sources)} images, at most {settings.max_images} are allowed", param="messages")
    for source in sources:
        if source.data_url is None and not settings.remote_images:
            raise ApiError(
                400,
                f"{source.param} must be a data URL: this server fetches no images",
                param=source.param,
                code="invalid_image_url",
            )


def with_chosen_size(
    options: ImageOptions,
    sizes: Sequence[tuple[int, int]],
    generator: Generator,
    *,
    text_tokens: int,
    answer_tokens: int | None,
) -> ImageOptions:
    """Return the image options of a request, with a token limit if its images would leave too little of the context.

    Args:
        options: Options that the request sets, itself or by its ``detail``.
        sizes: (height, width) of each image.
        generator: Generator of the server.
        text_tokens: Tokens of the text up to the last image. Later text does not count: an image whose size changed
            from turn to turn would have to be encoded again.
        answer_tokens: Maximum length of the answer, if the request sets it.

    Raises:
        ValueError: The options contradict each other.
    """
    if not sizes or options.image_aspect_ratio is not None or options.resolution is not None:
        return options
    config = generator.model.config
    server_default = ImageOptions(max_visual_tokens=generator.processor.image_processor.max_visual_tokens)
    choice = choose_size(
        sizes,
        config,
        server_default.merged(options),
        text_tokens=text_tokens + TEMPLATE_TOKENS,
        reserved=max(context_of(config) // SHARE_FOR_ANSWERS, answer_tokens or 0),
    )
    return options.merged(choice.options)


def text_before_last_image(messages: Sequence[dict[str, Any]]) -> str:
    """Return the text up to and including the message that has the last image."""
    with_images = [number for number, message in enumerate(messages) if _has_image(message)]
    until = with_images[-1] + 1 if with_images else 0
    return "\n".join(_text(message) for message in messages[:until])


def _has_image(message: dict[str, Any]) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(part["type"] == "image" for part in content)


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


class ImagePlan(NamedTuple):
    """How the images of a request are shown: aspect ratio, (height, width) as sent and as shown."""

    aspect_ratios: list[str]
    sizes: list[tuple[int, int]]
    shapes: list[tuple[int, int]]


def planned(
    chat: ChatRequest,
    sources: Sequence[ImageSource],
    sizes: list[tuple[int, int]],
    generator: Generator,
    processor: ConvLlavaProcessor,
    settings: Settings,
) -> ImagePlan:
    """Decide how images are shown, after a check that the request can fit at all, before a pixel is decoded.

    Args:
        chat: The client's request.
        sources: Images of the request.
        sizes: (height, width) of each image.
        generator: Generator of the server.
        processor: Copy of the generator's processor for this thread.
        settings: Settings of the server, with the image options that the request leaves open.

    Raises:
        ApiError: It does not fit, or an option is wrong.
    """
    is_low = [source.detail == "low" for source in sources]
    options = settings.image_options.merged(chat.image_options)
    if is_low and all(is_low):
        options = _low_detail(options)
    with _as_bad_request():
        if settings.auto_resolution:
            options = with_chosen_size(
                options,
                sizes,
                generator,
                text_tokens=_tokens_before_last_image(chat, processor, generator.context),
                answer_tokens=chat.max_tokens or chat.max_completion_tokens,
            )
        each = [_low_detail(options) if low else options for low in is_low]
        shapes = [
            processor.image_processor.resized_shape(*size, **own.given()) for size, own in zip(sizes, each, strict=True)
        ]
        _check_fits(chat, shapes, processor, generator.context)
        ratios = [own.image_aspect_ratio or processor.image_processor.image_aspect_ratio for own in each]
    return ImagePlan(ratios, sizes, shapes)


def _low_detail(options: ImageOptions) -> ImageOptions:
    """Return options with the limit of `detail: low`; of two limits the smaller one counts."""
    return replace(options, max_visual_tokens=min(options.max_visual_tokens or LOW_DETAIL_TOKENS, LOW_DETAIL_TOKENS))


@contextmanager
def _as_bad_request() -> Iterator[None]:
    try:
        yield
    except ContextOverflowError as error:
        raise ApiError(400, str(error), param="messages", code="context_length_exceeded") from error
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_value") from error


def prepared(
    request: Request,
    images: Sequence[Image.Image],
    plan: ImagePlan,
    processor: ConvLlavaProcessor,
    context: int,
) -> Prompt:
    """Return the prompt of a request.

    Args:
        request: The request to the model.
        images: Decoded images; with exact preprocessing they have their final size, with fast at least that.
        plan: Result of `planned`.
        processor: Copy of the generator's processor for this thread.
        context: Context length of the language model in tokens.

    Raises:
        ApiError: It does not fit, or the dialogue or an option is wrong.
    """
    with _as_bad_request():
        images_processor = processor.image_processor
        if images_processor.preprocessing == "exact":
            pixels = [images_processor.to_pixels(image) for image in images]
        else:
            decoded = zip(images, plan.sizes, plan.shapes, plan.aspect_ratios, strict=True)
            pixels = [images_processor.to_pixels_fast(*image) for image in decoded]
        return prompt_of(request, pixels, plan.sizes, processor, context)


def _tokens_before_last_image(chat: ChatRequest, processor: ConvLlavaProcessor, context: int) -> int:
    text = text_before_last_image([_plain(message) for message in chat.messages])
    return len(processor.tokenizer(text[: context * MOST_CHARACTERS_PER_TOKEN])["input_ids"])


def _check_fits(
    chat: ChatRequest, shapes: Sequence[tuple[int, int]], processor: ConvLlavaProcessor, context: int
) -> None:
    """Reject a request that is far too large before time and memory are spent on it."""
    stride = processor.image_processor.output_stride
    visual = sum(image_cost(shape, stride).visual_tokens for shape in shapes)
    if visual >= context:
        raise ContextOverflowError(
            f"the images take {visual} visual tokens and the context holds {context}: lower resolution or "
            "max_visual_tokens, or send fewer images"
        )
    characters = sum(_num_characters(_plain(message)) for message in chat.messages)
    if characters > context * MOST_CHARACTERS_PER_TOKEN:
        raise ContextOverflowError(f"the text has {characters} characters and the context holds {context} tokens")


def _num_characters(message: dict[str, Any]) -> int:
    content = message["content"]
    return len(content) if isinstance(content, str) else sum(len(part.get("text", "")) for part in content)


def inference_request(chat: ChatRequest, salt: str, *, reuse_dialogue_only: bool) -> Request:
    """Return the request to the model, without its images.

    Args:
        chat: The client's request.
        salt, reuse_dialogue_only: Limits of reuse; see `Request`.

    Raises:
        ApiError: There is nothing to answer.
    """
    with _as_bad_request():
        return Request(
            messages=[_plain(message) for message in chat.messages],
            max_new_tokens=chat.max_tokens or chat.max_completion_tokens,
            temperature=chat.temperature or 0.0,
            repetition_penalty=chat.repetition_penalty,
            no_repeat_ngram_size=chat.no_repeat_ngram_size,
            no_repeat_ngram_window=chat.no_repeat_ngram_window,
            stop_on_repetition=chat.stop_on_repetition is not False,
            box_image=chat.box_image,
            top_p=1.0 if chat.top_p is None else chat.top_p,
            top_k=max(0, chat.top_k or 0),
            min_p=chat.min_p or 0.0,
            seed=chat.seed,
            stop=[chat.stop] if isinstance(chat.stop, str) else chat.stop or [],
            top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
            json_schema=chat.response_format.schema_of_answer if chat.response_format else None,
            cache_salt=salt,
            reuse_dialogue_only=reuse_dialogue_only,
        )


def _plain(message: SystemMessage | UserMessage | AssistantMessage) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    parts = [
        {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
        for part in message.content
    ]
    return {"role": role, "content": parts}


def image_costs(
    sizes: Sequence[tuple[int, int]], processor: ConvLlavaProcessor, options: ImageOptions
) -> list[ImageCost]:
    """Return the costs of images of these (height, width), without reading a pixel.

    Raises:
        ValueError: An option is out of range.
    """
    shapes = [processor.image_processor.resized_shape(*size, **options.given()) for size in sizes]
    return [image_cost(shape, processor.image_processor.output_stride) for shape in shapes]


def image_cost(shape: tuple[int, int], stride: int) -> ImageCost:
    """Return the cost of an image that is shown at (height, width)."""
    rows, columns = shape[0] // stride, shape[1] // stride
    return ImageCost(grid=[rows, columns], resolution=list(shape), visual_tokens=rows * columns)
