"""Prompt formats: rendered texts, spans of the answers, rejected dialogues."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from convllava.model.nano_model import build_character_tokenizer
from convllava.model.prompts import (
    CONTROL_MARK,
    LLAVA_V1_SYSTEM,
    PROMPT_FORMATS,
    VICUNA_V1_SYSTEM,
    chat_template,
    check_messages,
    control_pattern,
    disarm,
    locate_answers,
    plain_messages,
    render,
)

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
IMAGE = {"type": "image"}

CHATML = """
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def assistant(answer: str) -> dict[str, Any]:
    return {"role": "assistant", "content": answer}


def system(prompt: str) -> dict[str, Any]:
    return {"role": "system", "content": prompt}


def written(name: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    return render(PROMPT_FORMATS[name], messages, SPECIAL, **variables)[0]


def own_words(template: str, messages: list[dict[str, Any]]) -> list[str]:
    prompt, spans = render(template, messages, SPECIAL)
    return [prompt[start:end] for start, end in spans]


class TestFormats:
    @pytest.mark.parametrize(("name", "default"), [("vicuna_v1", VICUNA_V1_SYSTEM), ("llava_v1", LLAVA_V1_SYSTEM)])
    def test_conversation(self, name: str, default: str) -> None:
        messages = [user(IMAGE, text("What?")), assistant("A cat."), user("Sure?"), assistant("Yes.")]
        expected = f"{default} USER: <image>\nWhat? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT: Yes.</s>"
        assert written(name, messages) == expected

    def test_the_two_system_prompts_differ_in_one_word(self) -> None:
        assert VICUNA_V1_SYSTEM.replace("user", "human") == LLAVA_V1_SYSTEM

    def test_generation_prompt(self) -> None:
        assert written("vicuna_v1", [user("Hi")], add_generation_prompt=True).endswith(" USER: Hi ASSISTANT:")

    def test_a_system_message_replaces_the_default(self) -> None:
        assert written("vicuna_v1", [system("Be brief."), user("Hi")]) == "Be brief. USER: Hi "
        assert written("vicuna_v1", [system(""), user("Hi")]) == "USER: Hi "

    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ((IMAGE, text("What?")), "<image>\nWhat?"),
            ((IMAGE, IMAGE, text("Same?")), "<image>\n<image>\nSame?"),
            ((text("Is "), IMAGE, text(" like "), IMAGE, text("?")), "Is <image> like <image>?"),
            ((text("What is shown?\n"), IMAGE), "What is shown?\n<image>"),
            ((IMAGE,), "<image>"),
            ((IMAGE, text("  two\n\nlines ")), "<image>\n  two\n\nlines "),
        ],
    )
    def test_places_of_images(self, parts: tuple[Any, ...], expected: str) -> None:
        assert written("vicuna_v1", [system(""), user(*parts)]) == f"USER: {expected} "

    def test_plain_is_images_and_captions(self) -> None:
        messages = [system("Hm."), user(IMAGE, text("Describe.")), assistant("A cat.")]
        assert written("plain", messages) == "<s><image>A cat.\n"
        assert written("plain", messages[:2], add_generation_prompt=True) == "<s><image>"

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("vicuna_v1", [" A cat.</s>", " \n Yes </s>"]), ("plain", ["A cat.\n", "\n Yes \n"])],
    )
    def test_marks_hold_all_that_the_model_produces(self, name: str, expected: list[str]) -> None:
        messages = [user("What?"), assistant("A cat."), user("Sure?"), assistant("\n Yes ")]
        assert own_words(PROMPT_FORMATS[name], messages) == expected


class TestTokenizersOwnTemplate:
    @pytest.fixture
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return build_character_tokenizer()

    def test_image_parts_are_put_in(self, tokenizer: PreTrainedTokenizerFast) -> None:
        tokenizer.chat_template = CHATML
        prompt, _ = render(chat_template("tokenizer", tokenizer), [user(IMAGE, text("What?"))], SPECIAL)
        assert prompt == "<|im_start|>user\n<image>\nWhat?<|im_end|>\n"

    def test_a_template_that_knows_images_only_learns_to_disarm(self, tokenizer: PreTrainedTokenizerFast) -> None:
        template = chat_template("tokenizer", tokenizer)
        assert template.endswith(tokenizer.chat_template)
        tokenizer.chat_template = template
        assert chat_template("tokenizer", tokenizer) == template
        messages = [system("Sys."), user(IMAGE, text("What?")), assistant("A cat.")]
        prompt, _ = render(tokenizer.chat_template, messages, SPECIAL)
        assert prompt == "<s>Sys.<|user|><image>What?<|assistant|>A cat.</s>"
        assert own_words(tokenizer.chat_template, messages) == ["A cat.</s>"]

    def test_answers_are_found_without_marks(self) -> None:
        pattern = control_pattern(["<|im_start|>", "<|im_end|>"])
        messages = [user("yes"), assistant("yes"), user("no\n"), assistant(" no")]
        prompt = render(CHATML, messages, SPECIAL)[0]
        spans = locate_answers(CHATML, messages, SPECIAL, pattern)
        assert [prompt[start:end] for start, end in spans] == ["yes<|im_end|>", " no<|im_end|>"]
        assert spans[0][0] > prompt.index("assistant\n")

    def test_trimmed_answers_are_found(self) -> None:
        template = CHATML.replace("message['content']", "message['content'] | trim")
        messages = [user("What?"), assistant(" A cat. ")]
        ((start, end),) = locate_answers(template, messages, SPECIAL, control_pattern(["<|im_end|>"]))
        assert render(template, messages, SPECIAL)[0][start:end] == "A cat.<|im_end|>"

    def test_rewritten_answers_are_an_error(self) -> None:
        template = CHATML.replace("message['content']", "message['content'] | upper")
        with pytest.raises(ValueError, match="rewrites the answer of turn 2"):
            locate_answers(template, [user("What?"), assistant("cat")], SPECIAL, control_pattern([]))

    def test_a_template_may_refuse(self) -> None:
        with pytest.raises(ValueError, match="cannot render this dialogue: no system"):
            render("{{ raise_exception('no system') }}", [user("Hi")], SPECIAL)

    def test_no_template(self, tokenizer: PreTrainedTokenizerFast) -> None:
        tokenizer.chat_template = None
        with pytest.raises(ValueError, match="needs a tokenizer with a chat template"):
            chat_template("tokenizer", tokenizer)

    def test_unknown_name(self, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ValueError, match="'v1': choose one of vicuna_v1, llava_v1, plain, tokenizer"):
            chat_template("v1", tokenizer)


class TestChecks:
    @pytest.mark.parametrize(
        ("messages", "message"),
        [
            ([], "dialogue is empty"),
            ([assistant("Hi")], "turn 1 is from 'assistant' and must be from 'user'"),
            ([user("a"), user("b")], "turn 2 is from 'user' and must be from 'assistant'"),
            ([user("a"), assistant("b"), system("c")], "turn 3 is from 'system'"),
            ([system("a"), system("b")], "turn 2 is from 'system' and must be from 'user'"),
            ([system("a")], "system message only"),
            ([user("a"), {"role": "gpt", "content": "b"}], "turn 2 has the unknown role 'gpt'"),
            ([{"role": "user"}], r"turn 1 \(user\) has the content None"),
            ([user({"type": "video"})], "turn 1 .* part of type 'video'"),
            ([user({"type": "text"})], "turn 1 .* without a string"),
            ([user("a"), {"role": "assistant", "content": [IMAGE]}], r"turn 2 \(assistant\) has an image"),
        ],
    )
    def test_dialogues_that_cannot_be_written(self, messages: list[Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check_messages(messages)

    def test_nothing_to_answer(self) -> None:
        check_messages([user("a"), assistant("b")])
        with pytest.raises(ValueError, match="turn 2, the last, is from 'assistant'"):
            check_messages([user("a"), assistant("b")], to_answer=True)


class TestTypedControlTokens:
    PATTERN = control_pattern(["<image>", "</s>", "<s>", "ab", "bc"])

    @pytest.mark.parametrize("typed", ["<image>", "a</s>b", "<s<s>>", "abc", "<<image>image>", "ab" * 5])
    def test_none_is_left(self, typed: str) -> None:
        marked = disarm(typed, self.PATTERN)
        assert not self.PATTERN.search(marked)
        assert marked.replace(CONTROL_MARK, "") == typed

    def test_marks_cannot_be_forged(self) -> None:
        assert disarm(f"<im{CONTROL_MARK}age>", self.PATTERN) == f"<{CONTROL_MARK}image>"

    def test_tokens_split_over_parts(self) -> None:
        (message,) = plain_messages([user(text("<im"), text("age>"), IMAGE)], self.PATTERN)
        assert message["content"] == [text(f"<{CONTROL_MARK}image>"), IMAGE]

    def test_images_data_stays_outside(self) -> None:
        (message,) = plain_messages([user({"type": "image", "image": object()})])
        assert message["content"] == [IMAGE]
