"""Prompt formats: chat templates by name, checks of messages, and rendering.

A template writes ``<image>`` for each image part. It marks with ``{% generation %}`` the text that the model must
produce: the answer, the space before it and the end token. Everything else is context.

``vicuna_v1``, ``llava_v1`` and ``plain`` write the prompts of LLaVA (https://github.com/haotian-liu/LLaVA,
``llava/conversation.py``), from which ConvLLaVA's code derives.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from ..compat import render_chat_template
from ..constants import IMAGE_TOKEN, PROMPT_FORMAT_NAMES, Message

Span = tuple[int, int]
"""(start, end) of characters in a text."""

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_STAND_IN = "\ufdd1"  # a Unicode noncharacter, which no text contains

ROLES = ("system", "user", "assistant")

_ASSISTANT_LINE = "The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
VICUNA_V1_SYSTEM = "A chat between a curious user and an artificial intelligence assistant. " + _ASSISTANT_LINE.format(
    who="user"
)
LLAVA_V1_SYSTEM = "A chat between a curious human and an artificial intelligence assistant. " + _ASSISTANT_LINE.format(
    who="human"
)

# Images that open a turn are on separate lines, as in LLaVA's training data; later ones stay at their place in the
# text.
_WRITE_CONTENT = """
{%- macro write(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- set seen = namespace(text=false) -%}
    {%- for part in content -%}
      {%- if part['type'] == 'text' -%}
        {%- set seen.text = true -%}
        {{- part['text'] -}}
      {%- else -%}
        {{- '<image>' -}}
        {%- if not seen.text and not loop.last -%}{{- '\\n' -}}{%- endif -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
"""

_CONVERSATION = """
{%- if messages and messages[0]['role'] == 'system' -%}
  {%- set system = write(messages[0]['content']) -%}
{%- else -%}
  {%- set system = DEFAULT_SYSTEM -%}
{%- endif -%}
{{- system + ' ' if system else '' -}}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- 'USER: ' + write(message['content']) + ' ' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- 'ASSISTANT:' -}}
    {%- generation -%}
      {{- ' ' + write(message['content']) + eos_token -}}
    {%- endgeneration -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""

# Images and their captions only: LLaVA's first training stage drops the question and any system message.
# BOS is written for tokenizers that add none themselves.
_PLAIN = """
{%- if bos_token -%}{{- bos_token -}}{%- endif -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' and message['content'] is not string -%}
    {%- for part in message['content'] if part['type'] != 'text' -%}{{- '<image>' -}}{%- endfor -%}
  {%- elif message['role'] == 'assistant' -%}
    {%- generation -%}
      {{- write(message['content']) + '\\n' -}}
    {%- endgeneration -%}
  {%- endif -%}
{%- endfor -%}
"""

# Language models' own templates mostly expect each content to be one string.
_FLATTEN_CONTENTS = """
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
  {%- set flat.messages = flat.messages + [dict(message, content=write(message['content']))] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""


# Programs that render a template themselves (vLLM, the tokenizer) neither mark typed control tokens nor refuse them. It
# is done here once more, which changes nothing where they are marked already. Adjacent texts are joined, as in
# `plain_messages`, and the loop over message['content'] tells vLLM that parts are read.
_DISARM = """
{%- macro as_text(text) -%}
  {%- set typed = namespace(text=text) -%}
  {%- for token in CONTROL_TOKENS -%}
    {%- set typed.text = typed.text | replace(token, token[:1] + '\\ufdd0' + token[1:]) -%}
  {%- endfor -%}
  {{- typed.text -}}
{%- endmacro -%}
{%- set safe = namespace(messages=[], parts=[], text='') -%}
{%- for message in messages -%}
  {%- if message['content'] is string -%}
    {%- set safe.messages = safe.messages + [dict(message, content=as_text(message['content']))] -%}
  {%- elif message['content'] -%}
    {%- set safe.parts = [] -%}
    {%- set safe.text = '' -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'text' -%}
        {%- set safe.text = safe.text + part['text'] -%}
      {%- else -%}
        {%- if safe.text -%}
          {%- set safe.parts = safe.parts + [{'type': 'text', 'text': as_text(safe.text)}] -%}
          {%- set safe.text = '' -%}
        {%- endif -%}
        {%- set safe.parts = safe.parts + [part] -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if safe.text -%}
      {%- set safe.parts = safe.parts + [{'type': 'text', 'text': as_text(safe.text)}] -%}
    {%- endif -%}
    {%- set safe.messages = safe.messages + [dict(message, content=safe.parts)] -%}
  {%- else -%}
    {%- set safe.messages = safe.messages + [message] -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = safe.messages -%}
"""


def _conversation(default_system: str) -> str:
    return _WRITE_CONTENT + _CONVERSATION.replace("DEFAULT_SYSTEM", f'"{default_system}"')


PROMPT_FORMATS: dict[str, str] = {
    "vicuna_v1": _conversation(VICUNA_V1_SYSTEM),
    "llava_v1": _conversation(LLAVA_V1_SYSTEM),
    "plain": _WRITE_CONTENT + _PLAIN,
}
"""Chat templates by name. The format "tokenizer" is not among them: it is the language model's own template."""


def chat_template(prompt_format: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja template of a prompt format.

    Raises:
        ValueError: The name is unknown, or "tokenizer" for a tokenizer without a chat template.
    """
    if prompt_format == "tokenizer":
        return _disarmed(tokenizer_template(tokenizer), tokenizer)
    if prompt_format not in PROMPT_FORMATS:
        raise ValueError(f"unknown prompt_format {prompt_format!r}: choose one of {', '.join(PROMPT_FORMAT_NAMES)}")
    return _disarmed(PROMPT_FORMATS[prompt_format], tokenizer)


def _disarmed(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a template in which control tokens that a message contains stay text."""
    if template.startswith("\n{%- macro as_text(text) -%}"):
        return template
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} | {IMAGE_TOKEN}
    tokens = sorted((token for token in special if len(token) > 1), key=lambda token: (-len(token), token))
    return _DISARM.replace("CONTROL_TOKENS", json.dumps(tokens)) + template


def tokenizer_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the tokenizer's own chat template, made to write ``<image>`` for image parts.

    A template that already does so is returned unchanged.

    Raises:
        ValueError: The tokenizer has no chat template.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise ValueError(
            "prompt_format 'tokenizer' needs a tokenizer with a chat template and this one has none: "
            f"choose one of {', '.join(PROMPT_FORMATS)}"
        )
    return template if _writes_images(template, tokenizer) else _WRITE_CONTENT + _FLATTEN_CONTENTS + template


def _writes_images(template: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    probe = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "probe"}]}]
    try:
        return render(template, probe, tokenizer.special_tokens_map)[0].count(IMAGE_TOKEN) == 1
    except (ValueError, TypeError):
        return False


def render(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, Any],
    **variables: Any,
) -> tuple[str, list[Span]]:
    """Render a dialogue and return it with the character spans of the text that the model must produce.

    Args:
        template: Jinja template; the spans need ``{% generation %}`` marks, which most language models' own lack.
        messages: The dialogue as plain data, see ``plain_messages``.
        special_tokens: Template variables such as bos_token and eos_token.
        variables: Other template variables, such as add_generation_prompt.

    Returns:
        The text and its spans, none if the template has no marks.

    Raises:
        ValueError: The template rejects the dialogue.
    """
    is_marked = _GENERATION_MARK.search(template) is not None
    try:
        texts, spans = render_chat_template([list(messages)], template, is_marked, **{**special_tokens, **variables})
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template cannot render this dialogue: {error}") from error
    return texts[0], spans[0] if is_marked else []


def locate_answers(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, Any],
    control_tokens: re.Pattern[str],
) -> list[Span]:
    """Return the spans of the answers and their end tokens in a dialogue whose template does not mark them.

    The dialogue is rendered a second time with a placeholder for each answer; the text around the placeholders gives
    the positions of the answers. The space before an answer is not part of its span here.

    Args:
        template: Jinja template without ``{% generation %}`` marks.
        messages: The dialogue as plain data, see ``plain_messages``.
        special_tokens: Template variables such as bos_token and eos_token.
        control_tokens: Pattern of the control tokens, to find the end token.

    Raises:
        ValueError: The template changes an answer.
    """
    stand_ins = [
        {**message, "content": _STAND_IN} if message["role"] == "assistant" else message for message in messages
    ]
    text = render(template, messages, special_tokens)[0]
    around = render(template, stand_ins, special_tokens)[0].split(_STAND_IN)
    turns = [turn for turn, message in enumerate(messages, start=1) if message["role"] == "assistant"]
    spans = []
    position = 0
    for turn, before, after in zip(turns, around, around[1:], strict=False):
        position += len(before)
        answer = _text_of(messages[turn - 1]["content"])
        written = next((form for form in (answer, answer.strip()) if text.startswith(form + after, position)), None)
        if written is None or not text.startswith(before, position - len(before)) or len(around) != len(turns) + 1:
            raise ValueError(
                f"the chat template rewrites the answer of turn {turn}, which then cannot be found in it: "
                "put {% generation %} marks around it in the template"
            )
        end = position + len(written)
        end_token = control_tokens.match(text, end)
        spans.append((position, end_token.end() if end_token else end))
        position = end
    return spans


def learned_spans(messages: Sequence[Message], answers: Sequence[Span]) -> list[Span]:
    """Return the spans of the answers that are learned, those without ``weight`` 0.

    Raises:
        ValueError: There are weights, and the template does not mark each answer once.
    """
    weights = [message.get("weight", 1) for message in messages if message["role"] == "assistant"]
    if all(weights):
        return list(answers)
    if len(answers) != len(weights):
        raise ValueError(
            f"the chat template marks {len(answers)} texts in a dialogue of {len(weights)} answers: 'weight' needs one "
            "{% generation %} mark around each"
        )
    return [span for span, weight in zip(answers, weights, strict=True) if weight]


def _text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def check_messages(messages: Sequence[Message], *, to_answer: bool = False) -> None:
    """Check that a dialogue is an optional system message, then user and assistant in turns.

    Args:
        messages: The dialogue.
        to_answer: Whether it must end with a user message.

    Raises:
        ValueError: A turn is out of order or has content that cannot be rendered; turns are counted from 1.
    """
    if not messages:
        raise ValueError("the dialogue is empty: it needs at least one user message")
    expected = "user"
    for turn, message in enumerate(messages, start=1):
        role = message.get("role")
        _check_content(turn, role, message.get("content"))
        if role == "system" and turn == 1:
            continue
        if role != expected:
            raise ValueError(f"turn {turn} is from {role!r} and must be from {expected!r}: roles alternate")
        expected = "assistant" if role == "user" else "user"
    if messages[-1]["role"] == "system":
        raise ValueError("the dialogue has a system message only: it needs at least one user message")
    if to_answer and expected == "user":
        raise ValueError(
            f"turn {len(messages)}, the last, is from 'assistant', so there is nothing to answer: end with a "
            "user message, or pass continue_final_message=True instead of add_generation_prompt=True"
        )


def _check_content(turn: int, role: Any, content: Any) -> None:
    if role not in ROLES:
        raise ValueError(f"turn {turn} has the unknown role {role!r}: use one of {', '.join(ROLES)}")
    if isinstance(content, str):
        return
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"turn {turn} ({role}) has the content {content!r}: use a string or a list of parts")
    for part in content:
        part_type = part.get("type") if isinstance(part, dict) else None
        if part_type not in ("text", "image", "image_url"):
            raise ValueError(f"turn {turn} ({role}) has a part of type {part_type!r}: use 'text' or 'image'")
        if part_type == "text" and not isinstance(part.get("text"), str):
            raise ValueError(f"turn {turn} ({role}) has a text part without a string under 'text'")
        if part_type != "text" and role != "user":
            raise ValueError(f"turn {turn} ({role}) has an image: images belong in user turns")


CONTROL_MARK = "\ufdd0"
"""Character inserted into a control token that a user typed, so that it is tokenized as text; a noncharacter."""

NOTHING = re.compile("(?!)")
"""Pattern that never matches, for texts that are not tokenized."""


def control_pattern(tokens: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of the control tokens, longer ones first."""
    longest_first = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else NOTHING


def plain_messages(messages: Sequence[Message], control_tokens: re.Pattern[str] = NOTHING) -> list[Message]:
    """Return the dialogue as templates read it: without image data, and with typed control tokens marked.

    Adjacent text parts are joined, because two harmless ones (``<im`` and ``age>``) would form a control token.
    """
    return [{**message, "content": _plain_content(message["content"], control_tokens)} for message in messages]


def _plain_content(content: Any, control_tokens: re.Pattern[str]) -> Any:
    if isinstance(content, str):
        return disarm(content, control_tokens)
    parts: list[Message] = []
    for is_text, group in groupby(content, key=lambda part: part["type"] == "text"):
        if is_text:
            text = "".join(part["text"] for part in group)
            parts.append({"type": "text", "text": disarm(text, control_tokens)})
        else:
            parts.extend({"type": "image"} for _ in group)
    return parts


def disarm(text: str, control_tokens: re.Pattern[str]) -> str:
    """Insert ``CONTROL_MARK`` into every control token of a text."""
    text = text.replace(CONTROL_MARK, "")
    while control_tokens.search(text):  # repeatedly, as one token may begin inside another
        text = control_tokens.sub(lambda found: found[0][0] + CONTROL_MARK + found[0][1:], text)
    return text
