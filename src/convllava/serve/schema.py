"""What clients send and receive: OpenAI's chat completions, images included, and a few options more."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..image_options import ImageAspectRatio, ImageOptions

MOST_STOPS = 4


def _whole(value: Any) -> Any:
    """JSON knows no difference between 1 and 1.0, and nor does JSON schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]


class Strict(BaseModel):
    """Unknown keys are errors, and so are numbers written as texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """An image."""

    url: str = Field(description="`data:image/...;base64,...`, or http(s) where the server allows it.")
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="`low`: at most 64 visual tokens. Must be the same for all images of a request."
    )


class ImagePart(Strict):
    """An image among words."""

    type: Literal["image_url"]
    image_url: ImageUrl


class SystemMessage(Strict):
    """Replaces the default system message of the prompt format."""

    role: Literal["system", "developer"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None


class UserMessage(Strict):
    """Words and images, in the order in which the model reads them."""

    role: Literal["user"]
    content: str | Annotated[list[Annotated[TextPart | ImagePart, Field(discriminator="type")]], Field(min_length=1)]
    name: str | None = None


class AssistantMessage(Strict):
    """An earlier answer."""

    role: Literal["assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None
    refusal: None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """What a stream holds besides text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ResponseFormat(Strict):
    """Plain text is all there is."""

    type: Literal["text"]


class ImageOptionFields(Strict):
    """Options of image preprocessing; an option that is left out is as the server has it."""

    image_aspect_ratio: ImageAspectRatio | None = Field(
        None, description="`pad`: on a square; `native`: the image's own shape."
    )
    resolution: Annotated[Integer, Field(ge=1, le=16384)] | None = Field(
        None, description="Pixels: side of the square (pad) or short side (native)."
    )
    max_visual_tokens: Annotated[Integer, Field(ge=1, le=65536)] | None = Field(
        None, description="Shrink each image to at most so many tokens (one per 64 x 64 pixels)."
    )

    @property
    def image_options(self) -> ImageOptions:
        """The options that are set."""
        return ImageOptions(self.image_aspect_ratio, self.resolution, self.max_visual_tokens)


class ChatRequest(ImageOptionFields):
    """Body of `POST /v1/chat/completions`."""

    model: str | None = Field(None, description="As `GET /v1/models` has it; the only one by default.")
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[Integer, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Integer, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="0, the default, always takes the likeliest token."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MOST_STOPS)]
        | None
    ) = None
    seed: Annotated[Integer, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[Literal[1], BeforeValidator(_whole)] | None = Field(
        None, description="One answer a request; send several requests for several."
    )
    # what clients send although it says nothing; other values would ask for what is not here
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    store: Literal[False] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _agree(self) -> "ChatRequest":
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise ValueError(f"max_tokens is {both[0]} and max_completion_tokens {both[1]}: give one of them")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for stream: true")
        return self


class EstimateRequest(ImageOptionFields):
    """Body of `POST /v1/estimate`: sizes of the images that will be sent."""

    sizes: Annotated[
        list[Annotated[list[Annotated[Integer, Field(ge=1, le=1 << 20)]], Field(min_length=2, max_length=2)]],
        Field(max_length=16, description="[width, height] of each image, in pixels."),
    ]
    num_text_characters: Annotated[Integer, Field(ge=0, le=1 << 24)] = 0


class ImageCost(BaseModel):
    """How one image is seen."""

    grid: list[int] = Field(description="[rows, columns] of visual tokens.")
    resolution: list[int] = Field(description="[height, width] in pixels.")
    visual_tokens: int


class Estimate(BaseModel):
    """What a request will cost, before it is sent."""

    images: list[ImageCost]
    visual_tokens: int
    context: int = Field(description="Tokens that prompt and answer may have together.")
    seconds: float | None = Field(description="Until the end of an answer of usual length, at the present load.")


class PromptTokensDetails(BaseModel):
    """Of the prompt's tokens."""

    cached_tokens: int
    image_tokens: int


class Usage(BaseModel):
    """Tokens; those of the prompt include the visual ones."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AnswerTimings(BaseModel):
    """Seconds, the last three since the request arrived at the model."""

    encode_seconds: float
    queue_seconds: float
    first_token_seconds: float
    total_seconds: float


class Extension(BaseModel):
    """What OpenAI's format has no place for."""

    images: list[ImageCost]
    boxes: list[list[float]] = Field(description="[x0, y0, x1, y1] in pixels of the first image, upright.")
    timings: AnswerTimings


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """Answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    convllava: Extension


class Delta(BaseModel):
    """The next piece of the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """What is new."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionChunk(BaseModel):
    """One event of a stream; the one with `finish_reason` has `convllava`, the one without choices `usage`."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    convllava: Extension | None = None


class ModelInfo(BaseModel):
    """What is special about a model."""

    output_stride: int
    image_aspect_ratio: str
    resolution: int | None
    max_visual_tokens: int | None
    context: int
    max_images: int
    remote_images: bool


class ModelCard(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "convllava"
    convllava: ModelInfo


class ModelList(BaseModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Answer of `GET /health`."""

    live: bool
    ready: bool
    running: int
    waiting: int


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Any answer with a status of 400 or more."""

    error: ErrorDetail
