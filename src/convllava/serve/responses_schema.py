"""Bodies of `POST /v1/responses`: OpenAI's responses API in the part that needs no tools and no stored state."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from .schema import (
    MOST_MESSAGES,
    MOST_PARTS,
    Extension,
    ImageOptionFields,
    Integer,
    JsonSchemaFormat,
    Part,
    ResponseFormat,
    Strict,
    bounded_metadata,
)


class InputText(Part):
    """A text part of a message."""

    type: Literal["input_text"]
    text: str


class InputImage(Part):
    """An image part of a message."""

    type: Literal["input_image"]
    image_url: str = Field(description="`data:image/...;base64,...`, or http(s) where the server allows it.")
    detail: Literal["auto", "low", "high", "original"] | None = Field(
        None, description="`low`: at most 64 visual tokens; the others are the default."
    )


class OutputText(Part):
    """A part of an earlier answer, as clients get it."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = Field(None, description="Without effect.")
    logprobs: list[Any] | None = Field(None, description="Without effect.")


class Item(Strict):
    """A turn of the dialogue."""

    type: Literal["message"] | None = None
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class SystemItem(Item):
    """Instructions; those before the first turn are joined."""

    role: Literal["system", "developer"]
    content: str | Annotated[list[InputText], Field(min_length=1, max_length=MOST_PARTS)]


class UserItem(Item):
    """A turn of the user: texts and images in reading order."""

    role: Literal["user"]
    content: (
        str
        | Annotated[
            list[Annotated[InputText | InputImage, Field(discriminator="type")]],
            Field(min_length=1, max_length=MOST_PARTS),
        ]
    )


class AssistantItem(Item):
    """An earlier answer of the model."""

    role: Literal["assistant"]
    content: str | Annotated[list[OutputText], Field(max_length=MOST_PARTS)]
    phase: Literal["commentary", "final_answer"] | None = Field(None, description="Without effect.")


def _message(item: Any) -> Any:
    if isinstance(item, dict) and "role" not in item and isinstance(item.get("type"), str):
        raise ValueError(f"items of type {item['type'][:40]!r} are not supported: send messages, which have a role")
    return item


InputItem = Annotated[
    Annotated[SystemItem | UserItem | AssistantItem, Field(discriminator="role")], BeforeValidator(_message)
]


class TextFormat(Strict):
    """The format of the answer: text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(max_length=256)] | None = Field(None, description="Without effect, like `strict`.")
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = Field(None, description="Every schema is followed strictly.")

    @model_validator(mode="after")
    def _agree(self) -> "TextFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError(f"type is {self.type}: give a schema with the type json_schema, and only with it")
        return self

    @property
    def as_chat(self) -> ResponseFormat:
        """The same as a chat request has it."""
        if self.json_schema is None:
            return ResponseFormat(type=self.type)
        return ResponseFormat(type=self.type, json_schema=JsonSchemaFormat.model_validate({"schema": self.json_schema}))

    @property
    def given(self) -> dict[str, Any]:
        """The format as it was sent."""
        return self.model_dump(by_alias=True, exclude_none=True)


class TextConfig(Strict):
    """The format of the answer."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Strict):
    """Accepted where it asks for nothing: the model does not reason before it answers."""

    effort: Literal["none"] | None = None


class NoObfuscation(Strict):
    """Optional contents of a stream; none is supported."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(ImageOptionFields):
    """Body of `POST /v1/responses`."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_MESSAGES)]
    instructions: str | None = Field(None, description="Replaces the default system message of the prompt format.")
    max_output_tokens: Annotated[Integer, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="0, the default, always takes the most likely token."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = False
    text: TextConfig | None = None
    metadata: Annotated[dict[str, str], BeforeValidator(bounded_metadata)] | None = None
    user: str | None = None
    # accepted where they change nothing, as some clients send them
    stream_options: NoObfuscation | None = None
    store: Literal[False] | None = Field(None, description="Responses are not stored: send the dialogue again.")
    background: Literal[False] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Integer | None = None
    truncation: Literal["disabled"] | None = None
    include: Annotated[list[Any], Field(max_length=0)] | None = None
    reasoning: Reasoning | None = None
    service_tier: Literal["auto", "default"] | None = None
    top_logprobs: Literal[0] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class InputTokensDetails(BaseModel):
    """Numbers of special tokens of the prompt."""

    cached_tokens: int
    cache_write_tokens: int = 0
    image_tokens: int


class OutputTokensDetails(BaseModel):
    """Numbers of special tokens of the answer."""

    reasoning_tokens: int = 0


class ResponsesUsage(BaseModel):
    """Numbers of tokens; those of the prompt include visual tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class OutputPart(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(BaseModel):
    """The answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputPart]


class IncompleteDetails(BaseModel):
    """Why an answer ended early."""

    reason: Literal["max_output_tokens"]


class ResponseFailure(BaseModel):
    """Why there is no answer."""

    code: str
    message: str


class ResponseObject(BaseModel):
    """Response of `POST /v1/responses`."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[OutputMessage] = []
    usage: ResponsesUsage | None = None
    instructions: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    text: dict[str, Any]
    metadata: dict[str, str]
    user: str | None
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    store: Literal[False] = False
    tool_choice: Literal["none", "auto"] = "auto"
    tools: list[Any] = []
    truncation: Literal["disabled"] = "disabled"
    convllava: Extension | None = None
