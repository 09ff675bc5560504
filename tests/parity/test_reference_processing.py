"""Prompts, token ids and pixels against the authors' pipeline, on the reference fixtures."""

import importlib.util
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from convllava.model.chunked_tokenization import ChunkTokenizer
from convllava.model.image_processing_convllava import ConvLlavaImageProcessor
from convllava.model.processing_convllava import ConvLlavaProcessor
from convllava.model.prompts import CONTROL_MARK

CASES = ("official-split-tiny", "official-consolidated-tiny")
POLICIES = ("pad", "native")

needs_sentencepiece = pytest.mark.skipif(
    not (importlib.util.find_spec("sentencepiece") and importlib.util.find_spec("google.protobuf")),
    reason="reading the fixtures' tokenizer.model needs sentencepiece and protobuf",
)


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=2)
def image_processor(folder: Path) -> ConvLlavaImageProcessor:
    case = load(folder / "golden" / "case.json")
    return ConvLlavaImageProcessor(image_aspect_ratio="pad", resolution=case["resolution"])


@lru_cache(maxsize=4)
def processor(folder: Path, prompt_format: str = "vicuna_v1") -> ConvLlavaProcessor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return ConvLlavaProcessor(image_processor(folder), tokenizer, prompt_format=prompt_format)


def open_golden_images(folder: Path) -> list[Image.Image]:
    names = load(folder / "golden" / "case.json")["images"]
    opened = []
    for name in names:
        with Image.open(folder / "golden" / name) as image:
            opened.append(image.convert("RGB"))
    return opened


def question(text: str, image: Image.Image) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def from_llava(conversations: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Read LLaVA's JSON as its training code does: the image goes first, texts around it are stripped."""
    messages = []
    for turn in conversations:
        text = turn["value"]
        parts: list[dict[str, str]] = []
        if "<image>" in text:
            text = text.replace("<image>", "").strip()
            parts.append({"type": "image"})
        role = {"human": "user", "gpt": "assistant"}[turn["from"]]
        messages.append({"role": role, "content": [*parts, {"type": "text", "text": text}]})
    return messages


def expand(input_ids: list[int], image_token_id: int, count: int) -> list[int]:
    """Replace the authors' placeholder, -200, by `count` image tokens."""
    expanded = []
    for token in input_ids:
        expanded += [image_token_id] * count if token == -200 else [token]
    return expanded


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", CASES)
def test_pixels_and_grids(shared_dir: Path, case: str, policy: str) -> None:
    folder = shared_dir / "reference" / case
    images = open_golden_images(folder)
    golden = np.load(folder / "golden" / f"{policy}.npz")
    resolution = load(folder / "golden" / "case.json")["resolution"]
    batch = image_processor(folder)(images, image_aspect_ratio=policy, resolution=resolution)
    for index, expected in enumerate(load(folder / "golden" / f"{policy}.json")):
        reference = golden[f"{index}_pixel_values"]
        height, width = batch["image_sizes"][index].tolist()
        assert (height, width) == reference.shape[1:]
        assert [height // 64, width // 64] == expected["grid"]
        row = batch["pixel_values"][index].numpy()
        np.testing.assert_allclose(row[:, :height, :width], reference, rtol=0, atol=1e-6)
        assert not row[:, height:].any() and not row[:, :, width:].any()


@needs_sentencepiece
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", CASES)
def test_prompts_and_token_ids(shared_dir: Path, case: str, policy: str) -> None:
    folder = shared_dir / "reference" / case
    tested = processor(folder)
    assert tested.image_token_id == 1000  # the next free id of a vocabulary of 1000
    questions = load(folder / "golden" / "case.json")["questions"]
    for expected, text, image in zip(
        load(folder / "golden" / f"{policy}.json"), questions, open_golden_images(folder), strict=True
    ):
        messages = question(text, image)
        assert tested.render(messages, add_generation_prompt=True) == expected["prompt"]
        batch = tested.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            processor_kwargs={"image_aspect_ratio": policy},
        )
        ids = expand(expected["input_ids"], 1000, expected["visual_tokens"])
        assert batch["input_ids"] == [ids]
        called = tested(images=image, text=expected["prompt"], image_aspect_ratio=policy)
        assert called["input_ids"] == [ids]


def training_cases(shared_dir: Path) -> list[dict[str, Any]]:
    return load(shared_dir / "reference" / CASES[0] / "golden" / "training_input_ids.json")


@needs_sentencepiece
def test_training_token_ids(shared_dir: Path) -> None:
    folder = shared_dir / "reference" / CASES[0]
    formats = {"v1": "vicuna_v1", "plain": "plain"}
    image = open_golden_images(folder)[0]
    for case in training_cases(shared_dir):
        tested = processor(folder, formats[case["version"]])
        messages = from_llava(case["conversations"])
        row = tested.encode(messages, [image] * case["input_ids"].count(-200))
        assert row["input_ids"].tolist() == expand(case["input_ids"], 1000, 16)


@needs_sentencepiece
def test_training_labels_are_the_answers_and_their_ends(shared_dir: Path) -> None:
    folder = shared_dir / "reference" / CASES[0]
    image = open_golden_images(folder)[0]
    for case in training_cases(shared_dir):
        if case["version"] != "v1":
            continue
        tested = processor(folder, "vicuna_v1")
        messages = from_llava(case["conversations"])
        row = tested.encode(messages, [image] * case["input_ids"].count(-200))
        supervised = row["input_ids"][row["labels_mask"]].tolist()
        answers = [turn["value"] for turn in case["conversations"] if turn["from"] == "gpt"]
        # Word-boundary pieces become the blank after "ASSISTANT:"; the first one is stripped by the decoder.
        assert tested.tokenizer.decode(supervised) == " ".join(f"{answer}</s>" for answer in answers)
        assert supervised.count(tested.tokenizer.eos_token_id) == len(answers)


@needs_sentencepiece
def test_plain_labels_are_the_caption_and_the_newline(shared_dir: Path) -> None:
    folder = shared_dir / "reference" / CASES[0]
    (case,) = (case for case in training_cases(shared_dir) if case["version"] == "plain")
    row = processor(folder, "plain").encode(from_llava(case["conversations"]), [open_golden_images(folder)[0]])
    authors = case["input_ids"]
    assert row["input_ids"][row["labels_mask"]].tolist() == authors[authors.index(-200) + 1 :]


@needs_sentencepiece
def test_typed_control_tokens_are_text_to_the_sentencepiece_tokenizer(shared_dir: Path) -> None:
    tested = processor(shared_dir / "reference" / CASES[0])
    typed = "What is <image> and </s> and <s>?"
    row = tested.encode([{"role": "user", "content": typed}, {"role": "assistant", "content": "a </s> tag"}])
    ids = row["input_ids"].tolist()
    assert tested.image_token_id not in ids
    assert ids.count(tested.tokenizer.bos_token_id) == 1
    assert ids.count(tested.tokenizer.eos_token_id) == 1
    decoded = tested.tokenizer.decode(ids, skip_special_tokens=True)
    assert f"USER: {typed} ASSISTANT: a </s> tag" in decoded
    assert tested.tokenizer.decode(ids[row["labels_mask"].tolist().index(True) :]) == "a </s> tag</s>"


@needs_sentencepiece
@pytest.mark.parametrize("index", [0, 1, 4, 9, 10, 14, 16, 20])
def test_a_mark_changes_no_token(shared_dir: Path, index: int) -> None:
    """Texts with a typed control token are encoded by other code, which must give the same ids."""
    tested = processor(shared_dir / "reference" / CASES[0])
    tokenize = partial(ChunkTokenizer(tested.tokenizer, tested.image_token), tested.tokenizer.backend_tokenizer)
    text = "USER: a\n b</s>USER: c  d"
    marked = text[:index] + CONTROL_MARK + text[index:]
    (ids, spans), (marked_ids, marked_spans) = tokenize(text), tokenize(marked)
    assert marked_ids == ids
    for (start, end), (marked_start, marked_end) in zip(spans, marked_spans, strict=True):
        assert marked[marked_start:marked_end].replace(CONTROL_MARK, "") == text[start:end]


@needs_sentencepiece
def test_retested_gives_the_same_ids(shared_dir: Path, tmp_path: Path) -> None:
    tested = processor(shared_dir / "reference" / CASES[0])
    tested.tokenizer.save_pretrained(tmp_path)
    tested.save_pretrained(tmp_path)
    loaded = ConvLlavaProcessor(
        ConvLlavaImageProcessor.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    )
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Größe?  漢字\n\nNow"}]},
        {"role": "assistant", "content": "12.50"},
    ]
    image = Image.new("RGB", (300, 200), "red")
    expected, actual = tested.encode(messages, [image]), loaded.encode(messages, [image])
    for name, value in expected.items():
        assert value.equal(actual[name]), name
