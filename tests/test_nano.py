"""The bundled model: its size, its parts, and the figures of its card."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from convllava.eval import run_benchmark
from convllava.inference import Generator, load_pretrained

NANO = Path(__file__).parents[1] / "src" / "convllava" / "assets" / "nano"
MEGABYTE = 1_000_000


@cache
def nano_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(NANO)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(*load_pretrained("nano"), max_batch=16)


def test_weights_are_small_bfloat16_shards() -> None:
    shards = list(NANO.glob("*.safetensors"))
    assert max(shard.stat().st_size for shard in shards) <= 15 * MEGABYTE
    assert sum(file.stat().st_size for file in NANO.iterdir()) <= 40 * MEGABYTE
    model, _ = load_pretrained("nano", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_it_has_five_stages_and_native_aspect_ratio(generator: Generator) -> None:
    config = generator.model.config
    assert config.output_stride == 64
    assert (config.image_aspect_ratio, config.resolution) == ("native", None)


@given(st.lists(st.integers(0, 100), min_size=4, max_size=4))
def test_a_box_is_four_tokens_and_the_same_text(hundredths: list[int]) -> None:
    tokenizer = nano_tokenizer()
    box = "[" + ", ".join(f"{value / 100:.2f}" for value in hundredths) + "]"
    assert len(tokenizer.tokenize(box)) == 4
    text = f"star {box}, 12.05, 3"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_price_is_read_digit_by_digit() -> None:
    assert nano_tokenizer().tokenize("RM 1.05") == ["R", "M", " ", "1", ".", "0", "5"]


# Bounds with room for the error of 60 samples around the card's figures, which come from 500.
@pytest.mark.parametrize(
    ("benchmark", "bound"),
    [
        ("synthetic-lines", 0.11),
        ("synthetic-scenes", 0.82),
        ("synthetic-grounding", 0.78),
        ("synthetic-documents", 0.72),
    ],
)
def test_it_reaches_the_figures_of_its_card(generator: Generator, benchmark: str, bound: float) -> None:
    score = run_benchmark(generator, benchmark, limit=60)
    assert score.value >= bound if score.higher_is_better else score.value <= bound
