"""From a body to what the model is asked: messages, images, options."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from PIL import Image

from ..analysis import context_of
from ..images import SERVER_LIMITS, decode_data_url, is_data_url, open_image
from ..inference import ContextOverflowError, Prompt, Request, prepare
from .errors import ApiError, as_api_errors
from .schema import AssistantMessage, ChatRequest, ImageCost, ImageOptions, ImagePart, SystemMessage, UserMessage
from .settings import Settings
from .showing import text_before_last_image, with_chosen_size

MOST_CHARACTERS_PER_TOKEN = 32
"""No text has longer tokens on average; a longer one is not tokenized just to count them."""

LOW_DETAIL_TOKENS = 64
"""`detail: low` is 512 x 512 pixels with OpenAI; here that is 8 x 8 visual tokens, in any shape."""


class ImageSource(NamedTuple):
    """An image of a body and where in it that stands."""

    url: str
    detail: str | None
    param: str


def image_sources(chat: ChatRequest) -> list[ImageSource]:
    """Return the images of a dialogue in reading order."""
    return list(_image_sources(chat))


def _image_sources(chat: ChatRequest) -> Iterator[ImageSource]:
    for turn, message in enumerate(chat.messages):
        parts = message.content if isinstance(message.content, list) else []
        for place, part in enumerate(parts):
            if isinstance(part, ImagePart):
                param = f"messages[{turn}].content[{place}].image_url.url"
                yield ImageSource(part.image_url.url, part.image_url.detail, param)


def check_sources(sources: Sequence[ImageSource], settings: Settings) -> None:
    """Refuse too many images, and URLs where they are not allowed, before anything is decoded."""
    if len(sources) > settings.max_images:
        raise ApiError(400, f"{len(sources)} images, at most {settings.max_images} are allowed", param="messages")
    for source in sources:
        if not is_data_url(source.url) and not settings.remote_images:
            raise ApiError(
                400,
                f"{source.param} must be a data URL: this server fetches no images",
                param=source.param,
                code="invalid_image_url",
            )


def image_options(chat: ChatRequest, sources: Sequence[ImageSource]) -> dict[str, Any]:
    """Return the options of the image processor; the smaller of two budgets counts."""
    low = {source.detail == "low" for source in sources}
    if len(low) > 1:
        raise ApiError(
            400,
            "detail: low for some images and not for others: give all images of a request the same detail",
            param="messages",
        )
    options = chat.given
    if low == {True}:
        options["max_visual_tokens"] = min(options.get("max_visual_tokens", LOW_DETAIL_TOKENS), LOW_DETAIL_TOKENS)
    return options


def open_sources(sources: Sequence[ImageSource], data: Sequence[bytes | None], max_pixels: int) -> list[Image.Image]:
    """Return the images upright and in RGB; `data` has the bytes of those that had to be fetched.

    Raises:
        ApiError: An image is damaged, an animation, too large, or of a format that is not accepted.
    """
    limits = replace(SERVER_LIMITS, max_pixels=max_pixels)
    images = []
    for source, fetched in zip(sources, data, strict=True):
        with as_api_errors(source.param):
            encoded = decode_data_url(source.url) if fetched is None else fetched
            images.append(open_image(encoded, limits=limits))
    return images


def prepared(
    chat: ChatRequest,
    images: Sequence[Image.Image],
    options: dict[str, Any],
    processor: Any,
    context: int,
    auto_config: Any = None,
) -> tuple[Request, Prompt]:
    """Return what the model is asked, tokenized and resized, after a look at whether it can fit at all.

    Args:
        chat: The request.
        images: Of the request, decoded.
        options: For the image processor.
        processor: Of the model.
        context: Positions that the model has.
        auto_config: Of the model, if sizes that the request leaves open are to be chosen.

    Raises:
        ApiError: It does not fit, or the dialogue or an option is wrong.
    """
    try:
        if auto_config is not None:
            options = _with_chosen_size(chat, images, options, processor, auto_config)
        request = inference_request(chat, images, options)
        _check_fits(request, processor, context)
        return request, prepare(request, processor, context)
    except ContextOverflowError as error:
        raise ApiError(400, str(error), param="messages", code="context_length_exceeded") from error
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_value") from error


def _with_chosen_size(
    chat: ChatRequest, images: Sequence[Image.Image], options: dict[str, Any], processor: Any, config: Any
) -> dict[str, Any]:
    text = text_before_last_image([_plain(message) for message in chat.messages])
    longest = context_of(config) * MOST_CHARACTERS_PER_TOKEN
    return with_chosen_size(
        options,
        [(image.height, image.width) for image in images],
        config,
        usual_budget=processor.image_processor.max_visual_tokens,
        text_tokens=len(processor.tokenizer(text[:longest])["input_ids"]),
        answer_tokens=chat.max_tokens or chat.max_completion_tokens,
    )


def _check_fits(request: Request, processor: Any, context: int) -> None:
    """Refuse what is far too much, before time and memory are spent on it."""
    costs = image_costs([image.size for image in request.images], processor, request.image_options)
    visual = sum(cost.visual_tokens for cost in costs)
    if visual >= context:
        raise ContextOverflowError(
            f"the images take {visual} visual tokens and the context holds {context}: lower resolution or "
            "max_visual_tokens, or send fewer images"
        )
    characters = sum(map(_num_characters, request.messages))
    if characters > context * MOST_CHARACTERS_PER_TOKEN:
        raise ContextOverflowError(f"the text has {characters} characters and the context holds {context} tokens")


def _num_characters(message: dict[str, Any]) -> int:
    content = message["content"]
    return len(content) if isinstance(content, str) else sum(len(part.get("text", "")) for part in content)


def inference_request(chat: ChatRequest, images: Sequence[Image.Image], options: dict[str, Any]) -> Request:
    """Return what the model is asked."""
    stop = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    return Request(
        messages=[_plain(message) for message in chat.messages],
        images=images,
        max_new_tokens=chat.max_tokens or chat.max_completion_tokens,
        temperature=chat.temperature or 0.0,
        top_p=1.0 if chat.top_p is None else chat.top_p,
        seed=chat.seed,
        stop=stop,
        **options,
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
    sizes: Sequence[tuple[int, int]], processor: Any, options: ImageOptions | dict[str, Any]
) -> list[ImageCost]:
    """Tell how images of these (width, height) will be seen, without touching a pixel.

    Raises:
        ValueError: An option is out of range.
    """
    given = options if isinstance(options, dict) else options.given
    shapes = [processor.image_processor.resized_shape(height, width, **given) for width, height in sizes]
    return [image_cost(shape, processor.image_processor.output_stride) for shape in shapes]


def image_cost(shape: tuple[int, int], stride: int) -> ImageCost:
    """Return the grid of an image that is seen at (height, width)."""
    rows, columns = shape[0] // stride, shape[1] // stride
    return ImageCost(grid=[rows, columns], resolution=list(shape), visual_tokens=rows * columns)
