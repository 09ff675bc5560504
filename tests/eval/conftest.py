"""Fixtures of the evaluation tests: a tiny generator, and predictions without a model."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def generator() -> Any:
    """A tiny random model with a batch size of four."""
    from tiny import tiny_model

    from convllava.inference import Generator

    return Generator(*tiny_model(), max_batch=4)


@pytest.fixture
def write_predictions() -> Write:
    """Return a function that writes the files of a run: predictions and their protocol."""

    def write(
        folder: Path,
        benchmark: str,
        answered: Iterable[tuple[Mapping[str, Any], str]],
        model: str = "a",
        errors: Mapping[int, str] | None = None,
        **protocol: Any,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, (row, prediction) in enumerate(answered):
            lines.append(
                {
                    "sample_id": str(row.get("index", number)),
                    "benchmark": benchmark,
                    "prediction": prediction,
                    "error": (errors or {}).get(number),
                    "num_image_tokens": 6,
                    "image_sizes": [[128, 192]],
                    "images": [] if "image_path" in row else [str(number)],
                    "model_fingerprint": model,
                    "protocol_hash": "p",
                    "row": dict(row),
                }
            )
        card = {
            "protocol": {
                "benchmark": benchmark,
                "image": {"image_aspect_ratio": "pad", "resolution": 1536},
                "data": {"questions": len(lines)},
                **protocol,
            },
            "protocol_hash": "p",
            "model": {"name": model, "fingerprint": model},
            "warnings": [],
        }
        (folder / f"{benchmark}.protocol.json").write_text(json.dumps(card))
        path = folder / f"{benchmark}.predictions.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write
