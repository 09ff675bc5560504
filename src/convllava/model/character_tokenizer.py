"""The nano models' tokenizer: one token a character, bytes for the rare ones, a handful of control tokens."""

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK, USER, ASSISTANT)

_ASCII = "\n" + "".join(map(chr, range(0x20, 0x7F)))
_BEYOND_ASCII = "£€¥§°±·×÷µ«»“”‘’–—…•ÄÖÜäöüßÀÁÂÇÈÉÊËÍÎÏÑÓÔÙÚÛàáâãåæçèéêëìíîïñòóôõøùúûœ"
CHARACTERS = _ASCII + _BEYOND_ASCII

# `<s>`, then turns: <|user|>IMAGE text<|assistant|>answer</s>. Images stand where the turn has them, with
# nothing around: every character is a position of the language model.
CHAT_TEMPLATE = """
{%- macro write(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- for part in content -%}
      {{- part['text'] if part['type'] == 'text' else '<image>' -}}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'assistant' -%}
    {{- '<|assistant|>' -}}
    {%- generation -%}
      {{- write(message['content']) + eos_token -}}
    {%- endgeneration -%}
  {%- elif message['role'] == 'user' -%}
    {{- '<|user|>' + write(message['content']) -}}
  {%- else -%}
    {{- write(message['content']) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def build_character_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer, always the same: 6 control tokens, 256 bytes, then the characters.

    It adds nothing of its own to a text; its chat template writes the control tokens.
    """
    pieces = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *CHARACTERS]
    model = BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        unk_token=UNK,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
