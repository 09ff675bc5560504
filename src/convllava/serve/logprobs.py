"""Log probabilities of the tokens of an answer, in OpenAI's format."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from ..inference import TokenLogprob
from ..inference.vocabulary import Vocabulary

LOWEST_LOGPROB = -9999.0
"""Log probability of tokens that the model excludes, since JSON has no infinity; the same as OpenAI's."""


class TopLogprob(BaseModel):
    """A token and its log probability."""

    token: str
    logprob: float = Field(description="Natural logarithm; at least -9999.")
    bytes: list[int]


class ContentLogprob(TopLogprob):
    """A token of the answer, and the most likely ones in its place."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """Log probabilities as the model has them, before any option of sampling."""

    content: list[ContentLogprob]
    refusal: None = None


def logprobs_of(tokens: Sequence[TokenLogprob], vocabulary: Vocabulary) -> Logprobs:
    """Return log probabilities with the text and the bytes of each token."""

    def named(token_id: int, logprob: float) -> dict[str, Any]:
        data = vocabulary.token_bytes(token_id)
        text = data.decode("utf-8", "backslashreplace")  # part of a character: its bytes are next to it
        return {"token": text, "logprob": max(logprob, LOWEST_LOGPROB), "bytes": list(data)}

    content = [
        ContentLogprob(
            **named(each.token_id, each.logprob), top_logprobs=[TopLogprob(**named(*top)) for top in each.top]
        )
        for each in tokens
    ]
    return Logprobs(content=content)
