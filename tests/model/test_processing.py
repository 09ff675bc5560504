"""The processor: expansion, labels, padding, safety, options and the contracts of transformers and vLLM."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

import convllava.model  # noqa: F401  (registers the classes with transformers)
from convllava.model.chunked_tokenization import ChunkTokenizer, overlapping
from convllava.model.image_processing_convllava import ConvLlavaImageProcessor
from convllava.model.nano_model import build_character_tokenizer, build_nano_processor
from convllava.model.processing_convllava import ConvLlavaProcessor, check_context

IMAGE = {"type": "image"}
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufdd0\ufdd1"), max_size=20)


@pytest.fixture(scope="module")
def nano() -> ConvLlavaProcessor:
    return build_nano_processor()


@pytest.fixture(scope="module")
def vicuna() -> ConvLlavaProcessor:
    """The usual format on the character tokenizer, which adds no BOS of its own."""
    return ConvLlavaProcessor(ConvLlavaImageProcessor(), build_character_tokenizer(), prompt_format="vicuna_v1")


def draw_image(width: int = 128, height: int = 64, color: str = "red") -> Image.Image:
    return Image.new("RGB", (width, height), color)


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def assistant(answer: str) -> dict[str, Any]:
    return {"role": "assistant", "content": answer}


def with_image(image: Any, question: str = "What?") -> list[dict[str, Any]]:
    return [user({"type": "image", "image": image}, text(question))]


def chat(processor: ConvLlavaProcessor, messages: Any, **options: Any) -> Any:
    return processor.apply_chat_template(messages, tokenize=True, return_dict=True, **options)


class TestEncode:
    def test_a_row(self, nano: ConvLlavaProcessor) -> None:
        row = nano.encode([user(IMAGE, text("Hi")), assistant("Yes")], [draw_image()])
        tokens = nano.tokenizer.convert_ids_to_tokens(row["input_ids"].tolist())
        assert tokens == [
            *["<s>", "<|user|>", "<image>", "<image>", "H", "i", "<|assistant|>"],
            *["Y", "e", "s", "</s>"],
        ]
        assert row["labels_mask"].tolist() == [False] * 7 + [True] * 4
        assert row["input_ids"].dtype == torch.int64
        assert row["labels_mask"].dtype == torch.bool
        assert row["pixel_values"].shape == (1, 3, 64, 128)
        assert row["image_sizes"].tolist() == [[64, 128]]

    def test_several_images_of_different_shapes(self, nano: ConvLlavaProcessor) -> None:
        messages = [user(text("a"), IMAGE, text("b"), IMAGE, IMAGE), assistant("c")]
        row = nano.encode(messages, [draw_image(64, 64), draw_image(128, 128), draw_image(64, 192)])
        image = [nano.image_token]
        tokens = nano.tokenizer.convert_ids_to_tokens(row["input_ids"].tolist())
        assert tokens[2:-3] == ["a", *image, "b", *image * 4, *image * 3]

    def test_text_alone(self, nano: ConvLlavaProcessor) -> None:
        row = nano.encode([user("Hi"), assistant("Yes")])
        assert row["pixel_values"].shape[0] == row["image_sizes"].shape[0] == 0

    def test_image_options(self, nano: ConvLlavaProcessor) -> None:
        messages = [user(IMAGE), assistant("c")]
        row = nano.encode(messages, [draw_image(640, 640)], image_aspect_ratio="pad", resolution=192)
        assert row["image_sizes"].tolist() == [[192, 192]]
        assert row["input_ids"].tolist().count(nano.image_token_id) == 9
        small = nano.encode(messages, [draw_image(640, 640)], max_visual_tokens=4)
        assert small["input_ids"].tolist().count(nano.image_token_id) == 4

    @settings(deadline=None)
    @given(turns=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
    def test_labels_are_exactly_the_answers(self, nano: ConvLlavaProcessor, turns: list[tuple[str, str]]) -> None:
        messages = [message for ask, answer in turns for message in (user(ask), assistant(answer))]
        row = nano.encode(messages)
        supervised = row["input_ids"][row["labels_mask"]].tolist()
        assert nano.tokenizer.decode(supervised) == "".join(f"{answer}</s>" for _, answer in turns)
        context = row["input_ids"][~row["labels_mask"]].tolist()
        asked = "".join(f"<|user|>{ask}<|assistant|>" for ask, _ in turns)
        assert nano.tokenizer.decode(context) == f"<s>{asked}"

    @settings(deadline=None)
    @given(ask=TEXTS, answer=TEXTS, token=st.sampled_from(["<image>", "</s>", "<s>", "<|user|>", "<pad>"]))
    def test_typed_control_tokens_stay_text(self, nano: ConvLlavaProcessor, ask: str, answer: str, token: str) -> None:
        messages = [user(IMAGE, text(ask + token)), assistant(token + answer)]
        ids = nano.encode(messages, [draw_image(64, 64)])["input_ids"].tolist()
        assert ids.count(nano.image_token_id) == 1
        specials = [i for i in ids if i < 6]  # <s> <|user|> <|assistant|> </s>, as the template wrote them
        assert specials == [1, 4, 5, 2]
        body = nano.tokenizer.decode([i for i in ids if i >= 6 and i != nano.image_token_id])
        assert body == ask + token + token + answer

    @pytest.mark.parametrize(("given", "message"), [(0, "1 <image> placeholder but 0"), (2, "but 2 images")])
    def test_counts_that_disagree(self, nano: ConvLlavaProcessor, given: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            nano.encode([user(IMAGE, text("Hi")), assistant("Yes")], [draw_image()] * given)

    def test_misspelled_option(self, nano: ConvLlavaProcessor) -> None:
        with pytest.raises(ValueError, match="did you mean 'resolution'"):
            nano.encode([user(IMAGE)], [draw_image()], resoluton=64)

    def test_labels_without_marks_in_the_template(self) -> None:
        tokenizer = build_character_tokenizer()
        tokenizer.chat_template = (
            "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}{{ m.content }}"
            "{{ eos_token }}\n{% endfor %}"
        )
        processor = ConvLlavaProcessor(ConvLlavaImageProcessor(), tokenizer, prompt_format="tokenizer")
        row = processor.encode([user(IMAGE, text("cat")), assistant("cat")], [draw_image()])
        assert processor.tokenizer.decode(row["input_ids"]) == (
            "<|user|><image><image>\ncat</s>\n<|assistant|>cat</s>\n"
        )
        assert processor.tokenizer.decode(row["input_ids"][row["labels_mask"]]) == "cat</s>"

    @pytest.mark.parametrize("marked", [True, False])
    def test_answers_of_weight_0_are_not_learned(self, nano: ConvLlavaProcessor, marked: bool) -> None:
        processor = nano
        if not marked:
            tokenizer = build_character_tokenizer()
            tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
            processor = ConvLlavaProcessor(ConvLlavaImageProcessor(), tokenizer, prompt_format="tokenizer")
        messages = [user("a?"), {**assistant("first"), "weight": 0}, user("b?"), {**assistant("second"), "weight": 1}]
        row, plain = processor.encode(messages), processor.encode([{**one, "weight": 1} for one in messages])
        assert row["input_ids"].tolist() == plain["input_ids"].tolist()
        assert processor.tokenizer.decode(row["input_ids"][row["labels_mask"]]) == "second</s>"
        assert processor.tokenizer.decode(plain["input_ids"][plain["labels_mask"]]) == "first</s>second</s>"

    def test_a_short_row_is_cheap(self, nano: ConvLlavaProcessor) -> None:
        """Training on lines calls this some hundred times a second beside the model."""
        messages = [user("Read."), assistant("A line of about sixty characters, as the nano model reads.")]
        best = min(_cpu_seconds(lambda: nano.encode(messages), 50) for _ in range(5))
        assert best < 1.5e-3


def _cpu_seconds(call: Callable[[], Any], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


class TestSpans:
    @given(
        cuts=st.lists(st.integers(0, 30), min_size=2, max_size=12),
        ranges=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=3),
    )
    def test_overlap(self, cuts: list[int], ranges: list[tuple[int, int]]) -> None:
        cuts = sorted(cuts)
        spans = list(pairwise(cuts))
        ordered = [(min(pair), max(pair)) for pair in ranges if pair[0] != pair[1]]
        expected = [
            start < end and any(start < stop and end > first for first, stop in ordered) for start, end in spans
        ]
        assert overlapping(spans, ordered) == expected


class TestCall:
    def test_every_placeholder_becomes_its_images_tokens(self, vicuna: ConvLlavaProcessor) -> None:
        batch = vicuna(images=[draw_image(64, 64), draw_image(128, 192)], text="a<image>b<image>c")
        tokens = vicuna.tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
        assert tokens == ["a", "<image>", "b", *["<image>"] * 6, "c"]

    def test_batches_are_padded_on_the_left(self, vicuna: ConvLlavaProcessor) -> None:
        batch = vicuna(text=["abc", "a"], padding=True, return_tensors="pt")
        assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
        assert batch["input_ids"][1, :2].tolist() == [vicuna.tokenizer.pad_token_id] * 2

    @pytest.mark.parametrize(
        ("options", "length"),
        [
            ({"padding": False}, 3),
            ({"padding": "longest", "pad_to_multiple_of": 8}, 8),
            ({"padding": "max_length", "max_length": 5}, 5),
        ],
    )
    def test_padding_options(self, vicuna: ConvLlavaProcessor, options: dict[str, Any], length: int) -> None:
        assert len(vicuna(text=["abc", "a"], **options)["input_ids"][0]) == length

    def test_padding_on_the_right_on_request(self, vicuna: ConvLlavaProcessor) -> None:
        batch = vicuna(text=["abc", "a"], padding=True, padding_side="right")
        assert batch["attention_mask"] == [[1, 1, 1], [1, 0, 0]]

    @pytest.mark.parametrize("nested", [True, False])
    def test_flat_and_nested_images(self, vicuna: ConvLlavaProcessor, nested: bool) -> None:
        first, second, third = draw_image(64, 64), draw_image(128, 64), draw_image(192, 64)
        images = [[first], [second, third]] if nested else [first, second, third]
        batch = vicuna(images=images, text=["<image>", "<image><image>"])
        assert [len(row) for row in batch["input_ids"]] == [1, 5]

    def test_counts_that_disagree_name_the_text(self, vicuna: ConvLlavaProcessor) -> None:
        with pytest.raises(ValueError, match="text 2 has 2 <image> placeholders but 1 image came"):
            vicuna(images=[[draw_image()], [draw_image()]], text=["<image>", "<image><image>"])
        with pytest.raises(ValueError, match="the text has 1 <image> placeholder but 0 images"):
            vicuna(text="<image>")

    def test_images_alone(self, vicuna: ConvLlavaProcessor) -> None:
        assert set(vicuna(images=draw_image(), return_tensors="pt")) == {"pixel_values", "image_sizes"}

    @pytest.mark.parametrize("kind", ["array", "tensor", "path", "str"])
    def test_kinds_of_images(self, vicuna: ConvLlavaProcessor, tmp_path: Path, kind: str) -> None:
        draw_image().save(tmp_path / "a.png")
        levels = np.asarray(draw_image())
        images: dict[str, Any] = {
            "array": levels,
            "tensor": torch.tensor(levels),
            "path": tmp_path / "a.png",
            "str": str(tmp_path / "a.png"),
        }
        batch = vicuna(images=images[kind], text="<image>")
        assert batch["pixel_values"].equal(vicuna(images=draw_image())["pixel_values"])

    def test_a_wrong_call(self, vicuna: ConvLlavaProcessor) -> None:
        with pytest.raises(ValueError, match="nothing to process"):
            vicuna()
        with pytest.raises(ValueError, match="truncation"):
            vicuna(text="abc", truncation=True, max_length=2)
        with pytest.raises(ValueError, match="'max_visual_token': did you mean 'max_visual_tokens'"):
            vicuna(images=draw_image(), text="<image>", max_visual_token=2)

    def test_settings_left_on_the_tokenizer_do_no_harm(self, vicuna: ConvLlavaProcessor) -> None:
        vicuna.tokenizer("abc", padding="max_length", max_length=2, truncation=True, split_special_tokens=True)
        assert len(vicuna(text="abcdef</s>")["input_ids"][0]) == 7


class TestChatTemplate:
    def test_generation_prompt_with_a_image(self, nano: ConvLlavaProcessor) -> None:
        batch = chat(nano, with_image(draw_image()), add_generation_prompt=True, return_tensors="pt")
        assert nano.tokenizer.decode(batch["input_ids"][0]) == "<s><|user|><image><image>What?<|assistant|>"
        assert batch["pixel_values"].shape == (1, 3, 64, 128)

    def test_equals_encode(self, vicuna: ConvLlavaProcessor) -> None:
        messages = [
            *with_image(draw_image(), "A </s> or <image>?"),
            assistant("Both."),
            user("Sure?"),
            assistant("Y"),
        ]
        row = vicuna.encode(messages, [draw_image()])
        batch = chat(vicuna, messages, return_assistant_tokens_mask=True)
        assert batch["input_ids"] == [row["input_ids"].tolist()]
        assert batch["assistant_masks"] == [row["labels_mask"].long().tolist()]

    def test_batched_with_masks_and_padding(self, nano: ConvLlavaProcessor) -> None:
        dialogues = [[*with_image(draw_image()), assistant("Yes")], [user("Hi"), assistant("No")]]
        batch = chat(
            nano,
            dialogues,
            return_assistant_tokens_mask=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        supervised = [
            nano.tokenizer.decode(ids[mask.bool()])
            for ids, mask in zip(batch["input_ids"], batch["assistant_masks"], strict=True)
        ]
        assert supervised == ["Yes</s>", "No</s>"]
        assert batch["attention_mask"][1].tolist()[:2] == [0, 0]

    @pytest.mark.parametrize("where", ["processor_kwargs", "keywords"])
    def test_image_options(self, nano: ConvLlavaProcessor, where: str) -> None:
        options: dict[str, Any] = {"image_aspect_ratio": "pad", "resolution": 256, "max_visual_tokens": 9}
        if where == "processor_kwargs":
            options = {"processor_kwargs": options}
        assert chat(nano, with_image(draw_image()), **options)["image_sizes"].tolist() == [[192, 192]]

    def test_sources_of_images(self, nano: ConvLlavaProcessor, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        draw_image().save(path)
        expected = chat(nano, with_image(draw_image()))
        for part in (
            {"type": "image", "path": str(path)},
            {"type": "image", "image": path},
            {"type": "image_url", "image_url": {"url": str(path)}},
        ):
            batch = chat(nano, [user(part, text("What?"))])
            assert batch["input_ids"] == expected["input_ids"]
            assert batch["pixel_values"].equal(expected["pixel_values"])
        beside = chat(nano, [user(IMAGE, text("What?"))], processor_kwargs={"images": [draw_image()]})
        assert beside["input_ids"] == expected["input_ids"]

    def test_transparent_files_stand_on_white(self, nano: ConvLlavaProcessor, tmp_path: Path) -> None:
        Image.new("RGBA", (64, 64)).save(tmp_path / "clear.png")
        batch = chat(nano, with_image(str(tmp_path / "clear.png")))
        assert batch["pixel_values"].equal(nano(images=draw_image(64, 64, "white"))["pixel_values"])

    def test_text_and_ids_alone(self, nano: ConvLlavaProcessor) -> None:
        messages = [user("Hi </s>")]
        assert nano.apply_chat_template(messages) == nano.render(messages) == "<s><|user|>Hi <\ufdd0/s>"
        assert nano.apply_chat_template([messages, messages]) == [nano.render(messages)] * 2
        ids = nano.apply_chat_template(messages, tokenize=True)
        assert ids == chat(nano, messages)["input_ids"]
        assert list(nano(text=nano.render(messages))["input_ids"][0]) == list(ids[0])

    def test_continued_answer(self, nano: ConvLlavaProcessor) -> None:
        messages = [user("Hi"), assistant("The to")]
        prompt = nano.apply_chat_template(messages, continue_final_message=True)
        assert prompt == "<s><|user|>Hi<|assistant|>The to"

    def test_messages_are_left_as_they_were(self, nano: ConvLlavaProcessor) -> None:
        messages = with_image(draw_image(), "A </s>?")
        before = repr(messages)
        chat(nano, messages)
        assert repr(messages) == before

    def test_wrong_dialogues(self, nano: ConvLlavaProcessor) -> None:
        with pytest.raises(ValueError, match="turn 2"):
            chat(nano, [user("a"), user("b")])
        with pytest.raises(ValueError, match="nothing to answer"):
            chat(nano, [user("a"), assistant("b")], add_generation_prompt=True)
        with pytest.raises(ValueError, match="dialogue is empty"):
            chat(nano, [])


class TestContracts:
    def test_image_token_is_the_next_free_id(self, nano: ConvLlavaProcessor) -> None:
        assert nano.image_token_id == 427 == len(nano.tokenizer) - 1
        assert nano.tokenizer.decode([nano.image_token_id], skip_special_tokens=True) == ""

    def test_vllm_counts(self, nano: ConvLlavaProcessor) -> None:
        sizes = [(64, 128), (1000, 600), (1, 4000)]
        images = [draw_image(width, height) for height, width in sizes]
        for options in ({}, {"max_visual_tokens": 20}, {"image_aspect_ratio": "pad", "resolution": 192}):
            counted = nano._get_num_multimodal_tokens(image_sizes=sizes, **options)
            batch = nano(images=images, text="<image>" * 3, return_mm_token_type_ids=True, **options)
            assert sum(counted["num_image_tokens"]) == len(batch["input_ids"][0])
            assert batch["mm_token_type_ids"] == [[1] * len(batch["input_ids"][0])]
            assert counted["num_image_patches"] == [1, 1, 1]

    def test_vllm_replacements(self, nano: ConvLlavaProcessor) -> None:
        batch = nano(
            images=[draw_image(), draw_image(64, 64)],
            text="a<image>b<image>",
            return_tensors="pt",
            return_text_replacement_offsets=True,
        )
        first, second = batch["text_replacement_offsets"][0]
        assert (first["type"], first["text"], first["replacement"]) == ("image", "<image>", "<image>" * 2)
        assert (first["span"], first["new_span"]) == ((1, 8), (1, 15))
        assert (second["span"], second["new_span"]) == ((9, 16), (16, 23))
        replacement_ids = nano.tokenizer.encode(first["replacement"], add_special_tokens=False)
        assert replacement_ids == [nano.image_token_id] * 2

    def test_offsets_refer_to_the_expanded_text(self, nano: ConvLlavaProcessor) -> None:
        batch = nano(images=[draw_image()], text="a<image>b", return_offsets_mapping=True)
        assert batch["offset_mapping"] == [[(0, 1), (1, 8), (8, 15), (15, 16)]]

    def test_model_inputs(self, nano: ConvLlavaProcessor) -> None:
        expected = {"input_ids", "attention_mask", "pixel_values", "image_sizes"}
        assert set(nano.model_input_names) == expected

    def test_context(self) -> None:
        check_context(10, 10)
        with pytest.raises(ValueError, match="11 tokens and the context holds 10"):
            check_context(11, 10)

    def test_slow_tokenizers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="use a fast tokenizer"):
            ChunkTokenizer(cast(Any, object()), "<image>")


class TestRoundTrip:
    @pytest.mark.parametrize("prompt_format", ["tokenizer", "vicuna_v1", "plain"])
    def test_saved_and_loaded(self, tmp_path: Path, prompt_format: str) -> None:
        image_processor = ConvLlavaImageProcessor(image_aspect_ratio="pad", resolution=192)
        own = ConvLlavaProcessor(image_processor, build_character_tokenizer(), prompt_format=prompt_format)
        own.save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        assert isinstance(loaded, ConvLlavaProcessor)
        assert loaded.prompt_format == prompt_format
        assert loaded.tokenizer.padding_side == "left"
        messages = [user(IMAGE, text("Größe </s> 漢字?")), assistant("a\n")]
        expected, actual = (processor.encode(messages, [draw_image()]) for processor in (own, loaded))
        for name, value in expected.items():
            assert value.equal(actual[name]), name

    def test_prompt_format_can_change_after_loading(self, tmp_path: Path, nano: ConvLlavaProcessor) -> None:
        own = build_nano_processor()
        own.set_prompt_format("vicuna_v1")
        own.save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        assert loaded.render([user("Hi")]).endswith("USER: Hi ")
        loaded.set_prompt_format("tokenizer")
        assert loaded.render([user("Hi")]) == nano.render([user("Hi")])

    def test_a_tokenizer_without_template_has_none_after_loading(self, tmp_path: Path) -> None:
        tokenizer = build_character_tokenizer()
        tokenizer.chat_template = None
        ConvLlavaProcessor(ConvLlavaImageProcessor(), tokenizer).save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        with pytest.raises(ValueError, match="chat template and this one has none"):
            loaded.set_prompt_format("tokenizer")
