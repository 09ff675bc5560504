"""Options of the commands that generate answers: how tokens are chosen, and when an answer ends."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..generation_options import GENERATION_OPTIONS, check_generation_option
from . import options as opt

if TYPE_CHECKING:
    from ..inference import Answer

Temperature = Annotated[
    float | None, typer.Option(help="0, the default, always takes the most likely token; above it, tokens are sampled.")
]
TopP = Annotated[float | None, typer.Option(help="Sample among the most likely tokens of this total probability.")]
TopK = Annotated[int | None, typer.Option(help="Sample among so many most likely tokens.")]
MinP = Annotated[
    float | None, typer.Option(help="Sample among tokens of at least this fraction of the highest probability.")
]
Seed = Annotated[int | None, typer.Option(help="Makes sampling repeatable.")]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1, tokens of prompt and answer become less likely; by default the model's.")
]
NoRepeatNgramSize = Annotated[
    int | None, typer.Option(help="Length of token sequences that never occur twice; by default the model's.")
]
NoRepeatNgramWindow = Annotated[
    int | None, typer.Option(help="Number of latest tokens that --no-repeat-ngram-size looks at; by default all.")
]
StopOnRepetition = Annotated[bool, typer.Option(help="End an answer that repeats one passage on and on.")]
JsonSchema = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Answer in JSON that follows the JSON schema in this file (extra: json)."),
]
System = Annotated[str | None, typer.Option(help="System message, in place of the prompt format's own.")]


@dataclass(frozen=True)
class RepetitionArguments:
    """Options against repetition."""

    repetition_penalty: RepetitionPenalty = None
    no_repeat_ngram_size: NoRepeatNgramSize = None
    no_repeat_ngram_window: NoRepeatNgramWindow = None


@dataclass(frozen=True)
class GenerationArguments(RepetitionArguments):
    """Length of an answer, and how its tokens are chosen."""

    max_new_tokens: opt.MaxNewTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    min_p: MinP = None
    seed: Seed = None
    stop_on_repetition: StopOnRepetition = True

    def given(self) -> dict[str, Any]:
        """Return the options that are set, as fields of a request.

        Raises:
            ValueError: A value is out of range, or has no effect without another option.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if self.stop_on_repetition:
            del given["stop_on_repetition"]
        for name in given.keys() & GENERATION_OPTIONS.keys():
            check_generation_option(name, given[name])
        sampling = [name for name in ("top_p", "top_k", "min_p", "seed") if name in given]
        if sampling and not self.temperature:
            name = sampling[0].replace("_", "-")
            raise ValueError(f"--{name} has no effect without sampling: add --temperature, or leave it out")
        return given


def read_schema(path: Path | None) -> dict[str, Any] | None:
    """Return the JSON schema in a file, checked as far as that takes no time, or None without a file.

    Raises:
        ValueError: The file is missing, or no JSON schema that answers could follow.
    """
    if path is None:
        return None
    from ..json_schema import require_llguidance, schema_text
    from ..support import read_json

    schema = read_json(path)
    require_llguidance()
    schema_text(schema)
    return schema


def cut_remark(answer: "Answer") -> str:
    """Return a remark about an answer that did not end by itself, or an empty text."""
    tokens = len(answer.token_ids)
    if answer.finish_reason == "length":
        return f"the answer was cut off at {tokens} tokens: raise --max-new-tokens"
    if answer.finish_reason == "repetition":
        return (
            f"the answer repeated itself and was ended after {tokens} tokens: try --repetition-penalty 1.1 or "
            "--no-repeat-ngram-size 8, or let it go on with --no-stop-on-repetition"
        )
    return ""
