"""Seconds of an answer that follows a JSON schema, of a free one of the same length, and without a stop for loops.

All answers have exactly `--tokens` tokens: the end token is never generated, and the schema asks for more text than
that. Goal: a constrained answer takes at most 1.2 times as long as a free one.
"""

import argparse
from typing import Any

from common import Report, main, paired, parser, rounds_of

from convllava.inference import Generator, Request, load_pretrained

SCHEMA = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "minItems": 1000,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 12}, "price": {"type": "number"}},
                "required": ["name", "price"],
            },
        }
    },
    "required": ["items"],
}


def run(report: Report) -> None:
    """Measure each batch size."""
    arguments = report.arguments
    model, processor = load_pretrained(arguments.model, device=arguments.device)
    never = {*(model.generation_config.suppress_tokens or ()), processor.tokenizer.eos_token_id}
    model.generation_config.suppress_tokens = sorted(never)
    for batch in (1, 16):
        generator = Generator(model, processor, batch)

        def answers(generator: Generator = generator, batch: int = batch, **options: Any) -> None:
            request = Request.of_question("Read the page.", max_new_tokens=arguments.tokens, **options)
            found = generator.generate([request] * batch)
            assert {len(answer.token_ids) for answer in found} == {arguments.tokens}

        candidates = {
            "free": lambda: answers(stop_on_repetition=False),
            "free_with_stop": lambda: answers(repetition_penalty=1.0),
            "penalties": lambda: answers(repetition_penalty=1.1, no_repeat_ngram_size=8, stop_on_repetition=False),
            "json": lambda: answers(json_schema=SCHEMA, stop_on_repetition=False),
        }
        timings = paired(candidates, rounds_of(arguments), arguments.device)
        report.add(
            batch=batch,
            tokens=arguments.tokens,
            free_ms_per_token=1000 * timings.median("free") / arguments.tokens,
            json_ratio=timings.ratio("json", "free"),
            penalties_ratio=timings.ratio("penalties", "free"),
            stop_ratio=timings.ratio("free_with_stop", "free"),
        )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--model", default="nano", help="nano, a checkpoint directory or a hub id (default: nano)")
    found.add_argument("--tokens", type=int, default=100, help="of each answer (default: 100)")
    return found


if __name__ == "__main__":
    main("json_answers", run, options())
