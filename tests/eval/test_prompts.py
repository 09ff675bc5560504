"""Prompts against recorded prompts of the kits."""

import json
from pathlib import Path
from typing import Any

import pytest

from convllava.eval import LoadOptions, PromptPart, find_benchmark
from convllava.eval.benchmarks.mmmu import interleaved
from convllava.eval.prompts import images_of, user_message
from convllava.model.prompts import PROMPT_FORMATS, plain_messages, render

COLUMN = {"paper": "paper_20240429", "llava": "llava_native_vicuna_v1"}


@pytest.fixture(scope="module")
def cases(shared_dir: Path) -> list[dict[str, Any]]:
    path = shared_dir / "eval" / "vectors" / "prompts.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return rows


def prompt_of(case: dict[str, Any], prompts: Any) -> list[PromptPart]:
    name = case["dataset"].replace("DocVQA_TEST", "DocVQA_VAL")
    return find_benchmark(name).prompt(case["row"], len(case["image_files"]), LoadOptions(prompts=prompts))


@pytest.mark.parametrize("prompts", COLUMN)
def test_rendered_prompts(cases: list[dict[str, Any]], prompts: str) -> None:
    checked = 0
    for case in cases:
        expected = case["expected"].get(COLUMN[prompts])
        if expected is None or "prompt" not in expected:
            continue
        parts = prompt_of(case, prompts)
        template = PROMPT_FORMATS["vicuna_v1" if prompts == "llava" else "llava_v1"]
        messages = plain_messages([user_message(parts)])
        assert render(template, messages, {}, add_generation_prompt=True)[0] == expected["prompt"], case["id"]
        if "images" in expected:
            assert [case["image_files"][number] for number in images_of(parts)] == expected["images"], case["id"]
        checked += 1
    assert checked > 10


def test_current_texts_in_their_order(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        messages = case["expected"]["current"]["messages"]
        wanted = [own["value"] for own in messages if own["type"] == "text"]
        parts = prompt_of(case, "current")
        assert [part for part in parts if isinstance(part, str)] == wanted, case["id"]
        assert len(images_of(parts)) == sum(own["type"] == "image" for own in messages), case["id"]


def test_a_missing_image_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"mentions <image 3> but there are 2 images"):
        interleaved("see <image 1> and <image 3>", 2)


def test_ocr_tokens_are_optional() -> None:
    row = {"question": "What is it?", "ocr_tokens": ["STOP", "4"]}
    options = LoadOptions(prompts="llava", ocr_tokens=True)
    (_, text) = find_benchmark("textvqa").prompt(row, 1, options)
    assert text == ("What is it?\nReference OCR token: STOP, 4\nAnswer the question using a single word or phrase.")
    with pytest.raises(ValueError, match="have no column ocr_tokens"):
        find_benchmark("textvqa").prompt({"question": "What is it?"}, 1, options)
