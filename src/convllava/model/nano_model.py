"""The nano model, trained from scratch on a laptop: its configuration, character tokenizer and processor.

Checkpoints need none of this file: they contain their configuration and ``tokenizer.json``.
"""

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from .configuration_convllava import ConvLlavaConfig, ConvLlavaVisionConfig
from .image_processing_convllava import ConvLlavaImageProcessor
from .processing_convllava import ConvLlavaProcessor

PAD, BOS, EOS, UNK, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK, USER, ASSISTANT)

_ASCII = "\n" + "".join(map(chr, range(0x20, 0x7F)))
_BEYOND_ASCII = "£€¥§°±·×÷µ«»“”‘’–—…•ÄÖÜäöüßÀÁÂÇÈÉÊËÍÎÏÑÓÔÙÚÛàáâãåæçèéêëìíîïñòóôõøùúûœ"
CHARACTERS = _ASCII + _BEYOND_ASCII

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
"""Prompt format: ``<s>``, then turns of ``<|user|><image>text<|assistant|>answer</s>``.

Nothing surrounds an image, since every character costs a position of the language model.
"""


def nano(vocab_size: int = 512, stages: int = 4) -> ConvLlavaConfig:
    """Return the configuration of the nano model.

    Args:
        vocab_size: Number of entries in the tokenizer's vocabulary, ``<image>`` included.
        stages: Stages of the vision encoder; the fifth is appended by the recipe of ``projector_init``.
    """
    vision_config = ConvLlavaVisionConfig(
        depths=[2, 2, 6, 2, 2][:stages],
        hidden_sizes=[32, 64, 128, 256, 512][:stages],
        layer_scale_init_value=0.1,  # trained from scratch: 1e-6 only delays the start
        initializer_range=None,
    )
    text_config = {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,  # 64 wide: a head size that vLLM accepts
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    return ConvLlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_aspect_ratio="native",
        resolution=None,
        prompt_format="tokenizer",
    )


def build_nano_processor(
    output_stride: int = 64,
    image_aspect_ratio: str = "native",
    resolution: int | None = None,
    max_visual_tokens: int | None = None,
) -> ConvLlavaProcessor:
    """Build the processor of the nano model, with its character tokenizer and compact prompt format.

    Args:
        output_stride: Pixels per side of one visual token.
        image_aspect_ratio: Default aspect policy, "pad" or "native".
        resolution: Default resolution, see ``ConvLlavaImageProcessor``.
        max_visual_tokens: Default limit of one image, None for no limit.
    """
    image_processor = ConvLlavaImageProcessor(
        output_stride=output_stride,
        image_aspect_ratio=image_aspect_ratio,
        resolution=resolution,
        max_visual_tokens=max_visual_tokens,
    )
    return ConvLlavaProcessor(image_processor, build_character_tokenizer(), prompt_format="tokenizer")


def build_character_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer of 6 control tokens, 256 bytes and one token for each common character.

    It adds no special tokens to a text; the chat template writes them.
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
