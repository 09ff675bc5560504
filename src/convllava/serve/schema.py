"""Bodies of requests and responses: OpenAI's chat completions with images, and a few further options."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..image_options import ImageAspectRatio, ImageOptions
from .logprobs import Logprobs

MOST_STOPS = 4
MOST_STOP_CHARACTERS = 1024
MOST_MESSAGES = 1000
MOST_PARTS = 1000
MOST_KEYS = 64
MOST_METADATA = 16
"""Maximum number of metadata entries, as OpenAI's."""


def bounded_metadata(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MOST_METADATA:  # pydantic would check each entry first
        raise ValueError(f"{len(value)} entries, at most {MOST_METADATA} are allowed")
    return value


def _as_integer(value: Any) -> Any:
    """Return 1.0 as 1: JSON and JSON schema do not distinguish them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_as_integer)]


class Strict(BaseModel):
    """A body in which unknown keys, and numbers written as texts, are errors; a key that is null is absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        if len(body) > MOST_KEYS:
            raise ValueError(f"{len(body)} keys, at most {MOST_KEYS} are allowed")
        return {key: value for key, value in body.items() if value is not None}


class Part(Strict):
    """A part of a message."""

    cache_control: dict[str, Any] | None = Field(None, description="A hint for other servers, without effect.")


class TextPart(Part):
    """A text part of a message."""

    type: Literal["text"]
    text: str
    annotations: list[Any] | None = Field(None, description="As in replayed answers, without effect.")


class ImageUrl(Strict):
    """The URL of an image, and its detail."""

    url: str = Field(description="`data:image/...;base64,...`, or http(s) where the server allows it.")
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        None, description="`low`: at most 64 visual tokens; the others are the default."
    )


def _as_url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class ImagePart(Part):
    """An image part of a message."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_as_url)]


Texts = Annotated[list[TextPart], Field(min_length=1, max_length=MOST_PARTS)]


class SystemMessage(Strict):
    """Replaces the default system message of the prompt format."""

    role: Literal["system", "developer"]
    content: str | Texts
    name: str | None = None
    id: str | None = None


class UserMessage(Strict):
    """A turn of the user: texts and images in reading order."""

    role: Literal["user"]
    content: (
        str
        | Annotated[
            list[Annotated[TextPart | ImagePart, Field(discriminator="type")]],
            Field(min_length=1, max_length=MOST_PARTS),
        ]
    )
    name: str | None = None
    id: str | None = None


class AssistantMessage(Strict):
    """An earlier answer of the model, also as clients get it: with an id, annotations and empty lists of tools."""

    role: Literal["assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MOST_PARTS)] = ""
    name: str | None = None
    id: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = Field(None, description="Of other models; without effect.")
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """Optional contents of a stream."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class JsonSchemaFormat(Strict):
    """A JSON schema that the answer follows."""

    name: Annotated[str, Field(max_length=256)] | None = Field(None, description="Without effect, like `strict`.")
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(None, description="Every schema is followed strictly.")


class ResponseFormat(Strict):
    """The format of the answer: text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _agree(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("type json_schema needs json_schema: {name, schema}")
        if self.type != "json_schema" and self.json_schema is not None:
            raise ValueError(f"json_schema has no effect with type {self.type}: set type to json_schema")
        return self

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """JSON schema that the answer follows; None for plain text."""
        if self.json_schema is not None:
            return self.json_schema.json_schema
        return {"type": "object"} if self.type == "json_object" else None


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


StopText = Annotated[str, Field(min_length=1, max_length=MOST_STOP_CHARACTERS)]


class ChatRequest(ImageOptionFields):
    """Body of `POST /v1/chat/completions`."""

    model: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="Name as in `GET /v1/models`; by default the only model."
    )
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[Integer, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Integer, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="0, the default, always takes the most likely token."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = Field(
        None, description="Above 1, tokens of the prompt and the answer become less likely; by default the model's."
    )
    top_k: Annotated[Integer, Field(ge=-1, lt=2**63)] | None = Field(
        None, description="Sample among so many most likely tokens; 0 or -1 sets no limit."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Sample among tokens of at least this fraction of the highest probability."
    )
    no_repeat_ngram_size: Annotated[Integer, Field(ge=0, le=1000)] | None = Field(
        None, description="Length of token sequences that never occur twice; by default the model's, 0 allows all."
    )
    no_repeat_ngram_window: Annotated[Integer, Field(ge=1, lt=2**63)] | None = Field(
        None, description="Number of latest tokens that no_repeat_ngram_size looks at; by default all."
    )
    stop_on_repetition: bool | None = Field(
        None, description="End an answer that repeats one passage on and on; true by default."
    )
    seed: Annotated[Integer, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: bool | None = Field(None, description="Return the log probability of each token of the answer.")
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = Field(
        None, description="Number of most likely tokens to return with each; needs `logprobs`."
    )
    box_image: Annotated[Integer, Field(ge=0, le=MOST_PARTS)] | None = Field(
        None,
        description="Index of the image that boxes in the answer are about; by default the one that the question names "
        "('the second image'), else the last.",
    )
    n: Annotated[Literal[1], BeforeValidator(_as_integer)] | None = Field(
        None, description="One answer a request; send several requests for several."
    )
    # accepted at their defaults, which some clients send; other values are not supported
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    store: Literal[False] | None = None
    user: str | None = None
    metadata: Annotated[dict[str, str], BeforeValidator(bounded_metadata)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none", "auto"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _agree(self) -> "ChatRequest":
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise ValueError(f"max_tokens is {both[0]} and max_completion_tokens {both[1]}: give one of them")
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"top_logprobs is {self.top_logprobs}, which needs logprobs: true")
        return self


class EstimateRequest(ImageOptionFields):
    """Body of `POST /v1/estimate`: sizes of the images that will be sent."""

    sizes: Annotated[
        list[Annotated[list[Annotated[Integer, Field(ge=1, le=1 << 20)]], Field(min_length=2, max_length=2)]],
        Field(max_length=16, description="[width, height] of each image, in pixels."),
    ]
    num_text_characters: Annotated[Integer, Field(ge=0, le=1 << 24)] = 0


class ImageCost(BaseModel):
    """The size of one image at the input of the vision encoder, and its cost."""

    grid: list[int] = Field(description="[rows, columns] of visual tokens.")
    resolution: list[int] = Field(description="[height, width] in pixels.")
    visual_tokens: int


class Estimate(BaseModel):
    """The cost of a request before it is sent."""

    images: list[ImageCost]
    visual_tokens: int
    context: int = Field(description="Tokens that prompt and answer may have together.")


class PromptTokensDetails(BaseModel):
    """Numbers of special tokens of the prompt."""

    cached_tokens: int
    image_tokens: int


class Usage(BaseModel):
    """Numbers of tokens; those of the prompt include visual tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AnswerTimings(BaseModel):
    """Times in seconds; the last three count from the submission to the model."""

    encode_seconds: float
    queue_seconds: float
    first_token_seconds: float
    total_seconds: float


class Extension(BaseModel):
    """Additions to OpenAI's format."""

    images: list[ImageCost]
    finish_reason: Literal["stop", "length", "repetition"] = Field(
        description="As in the choice, but `repetition` where an answer was cut because it repeated itself."
    )
    boxes: list[list[float]] = Field(description="[x0, y0, x1, y1] in pixels of the image `box_image`, upright.")
    box_image: int | None = Field(description="Index of the image that the boxes are about; null without images.")
    timings: AnswerTimings


class AnswerMessage(BaseModel):
    """The message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The only choice of a completion."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """Response of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    convllava: Extension


class Delta(BaseModel):
    """The next piece of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The only choice of a chunk."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: Logprobs | None = None
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
    """Properties of the served model in addition to OpenAI's format."""

    output_stride: int
    image_aspect_ratio: str
    resolution: int | None
    max_visual_tokens: int | None = Field(description="Of each image, unless the request sets it.")
    trained_visual_tokens: list[int] | None = Field(description="Fewest and most of one image in training, if known.")
    max_visual_tokens_low_detail: int = Field(description="Of an image with `detail: low`.")
    max_visual_tokens_together: int = Field(description="Of all images of a request.")
    context: int = Field(description="Tokens that prompt and answer may have together.")
    max_images: int
    max_image_pixels: int
    remote_images: bool
    input_modalities: list[str] = ["text", "image"]
    output_modalities: list[str] = ["text"]


class ModelCard(BaseModel):
    """A model in the list of models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "convllava"
    max_model_len: int = Field(description="The context, as vLLM names it.")
    convllava: ModelInfo


class ModelList(BaseModel):
    """Response of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Response of `GET /health`."""

    live: bool
    ready: bool
    running: int
    waiting: int


class ErrorDetail(BaseModel):
    """Details of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Body of every response with a status of 400 or more."""

    error: ErrorDetail
