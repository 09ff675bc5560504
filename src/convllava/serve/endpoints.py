"""The formats in which a dialogue can be sent and its answer received; all take the same path to the model."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from ..inference import Answer, Event
from ..inference.vocabulary import Vocabulary
from .completions import CompletionWriter
from .conversion import place_in_messages
from .responses import ResponseWriter, chat_of, place_of_image
from .responses_schema import ResponsesRequest
from .schema import ChatRequest

Body = TypeVar("Body", bound=BaseModel)


class Writer(Protocol):
    """Formats one answer, complete or as a stream."""

    def complete(self, answer: Answer) -> BaseModel:
        """Return the complete answer."""
        ...

    def stream(self, events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
        """Yield server-sent events."""
        ...


@dataclass(frozen=True)
class Endpoint(Generic[Body]):
    """One format.

    Attributes:
        body_type: Type of the client's body.
        other_names: Keys of the body by the keys of a chat request that mean the same.
        as_chat: Conversion of a body to a chat request.
        place_of_image: Place in a body of an image, by the indices of its message and part in the chat request.
        writer: Constructor of a writer, from the body, the model's name, its output stride and its vocabulary.
    """

    body_type: type[Body]
    other_names: Mapping[str, str]
    as_chat: Callable[[Body], ChatRequest]
    place_of_image: Callable[[Body, int, int], str]
    writer: Callable[[Body, str, int, Vocabulary], Writer]


COMPLETIONS = Endpoint(
    ChatRequest, {}, lambda asked: asked, lambda _, turn, part: place_in_messages(turn, part), CompletionWriter
)
RESPONSES_NAMES = {"messages": "input", "response_format": "text.format"}
RESPONSES = Endpoint(ResponsesRequest, RESPONSES_NAMES, chat_of, place_of_image, ResponseWriter)
