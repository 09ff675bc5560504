"""Dialogues and images to what the model reads: prompts rendered, ``<image>`` expanded, rows padded."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ImagesKwargs, MultiModalData, ProcessorMixin, TextKwargs

from ..compat import merge_processor_kwargs
from ..constants import IMAGE_TOKEN, Message
from ..image_options import IMAGE_OPTIONS
from .chunked_tokenization import ChunkTokenizer, Tokens, overlapping
from .image_processing_convllava import ConvLlavaImageProcessor, num_image_tokens
from .processing_inputs import Padding, as_dialogues, check_context, check_counts, flatten_images, images_of
from .prompts import (
    Span,
    check_messages,
    learned_spans,
    locate_answers,
    plain_messages,
    render,
)
from .prompts import chat_template as template_of_format

__all__ = ["ConvLlavaProcessor", "check_context"]


class ConvLlavaProcessor(ProcessorMixin):
    """Image processor, tokenizer and prompt format of a checkpoint.

    Args:
        image_processor: Image processor, whose options can be replaced in every call.
        tokenizer: Any fast tokenizer. ``<image>`` is added to it as the next free id if missing, and it is
            set to pad on the left, as generation needs.
        chat_template: Jinja template; by default that of ``prompt_format``.
        prompt_format: "vicuna_v1", "llava_v1", "plain" or "tokenizer" (the tokenizer's own template).
        own_template: The tokenizer's own template, stored here because saving overwrites the tokenizer's copy.
    """

    def __init__(
        self,
        image_processor: ConvLlavaImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        prompt_format: str = "vicuna_v1",
        own_template: str | None = None,
    ) -> None:
        self.prompt_format = prompt_format
        if own_template is None and tokenizer.chat_template != chat_template:
            own_template = tokenizer.chat_template
        self.own_template = tokenizer.chat_template = own_template
        template = chat_template or template_of_format(prompt_format, tokenizer)
        super().__init__(image_processor, tokenizer, chat_template=template)
        self.image_token = IMAGE_TOKEN
        self.image_token_id = _add_image_token(tokenizer)
        _prepare_padding(tokenizer)
        self._special_tokens = dict(tokenizer.special_tokens_map)
        self._chunks = ChunkTokenizer(tokenizer, IMAGE_TOKEN)

    def set_prompt_format(self, prompt_format: str) -> None:
        """Render dialogues in another format from now on."""
        self.chat_template = template_of_format(prompt_format, self.tokenizer)
        self.prompt_format = prompt_format

    def encode(
        self, messages: Sequence[Message], images: Sequence[Any] = (), **image_options: Any
    ) -> dict[str, torch.Tensor]:
        """Prepare one dialogue for training.

        Args:
            messages: The dialogue; its image parts are placeholders for ``images``, in order.
            images: PIL, numpy or torch images.
            image_options: image_aspect_ratio, resolution, max_visual_tokens.

        Returns:
            input_ids (T,) int64, with an image's token once per visual token; labels_mask (T,) bool, true on
            the assistant's text and its end token except in turns of ``weight`` 0; pixel_values (N, 3, Hmax, Wmax);
            image_sizes (N, 2).

        Raises:
            ValueError: Roles are out of order, images and placeholders disagree, or an image option is wrong.
        """
        check_messages(messages)
        text, answers = self._render(messages, self.chat_template, with_answers=True)
        check_counts([text], [len(images)])
        pixel_values, image_sizes = self.image_processor.prepare(images, **image_options)
        ids, spans = self._tokenize(text, self._counts(image_sizes))
        input_ids = torch.tensor(ids, dtype=torch.int64)
        supervised = torch.tensor(overlapping(spans, answers), dtype=torch.bool)
        return {
            "input_ids": input_ids,
            "labels_mask": supervised & (input_ids != self.image_token_id),
            "pixel_values": pixel_values,
            "image_sizes": image_sizes,
        }

    def encode_prompt(
        self, messages: Sequence[Message], images: Sequence[Any] = (), **image_options: Any
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Prepare one dialogue for generation.

        Args:
            messages: Dialogue whose last turn is the user's; its image parts are placeholders for ``images``.
            images: Opened images.
            image_options: Image options that replace the stored ones.

        Returns:
            Token ids (T,) int64, with the image token once per visual token, and the pixels (3, H_i, W_i) of each
            image.

        Raises:
            ValueError: Roles are out of order, images and placeholders disagree, or an image option is wrong.
        """
        pixels = self.image_processor.prepare_each(images, **image_options)
        return self.encode_messages(messages, [(image.shape[1], image.shape[2]) for image in pixels]), pixels

    def encode_messages(self, messages: Sequence[Message], shapes: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Return the token ids (T,) int64 of one dialogue for generation.

        Args:
            messages: Dialogue whose last turn is the user's; its image parts are placeholders.
            shapes: (height, width) of each image at the input of the vision encoder.

        Raises:
            ValueError: Roles are out of order, or images and placeholders disagree.
        """
        check_messages(messages, to_answer=True)
        text, _ = self._render(messages, self.chat_template, with_answers=False, add_generation_prompt=True)
        check_counts([text], [len(shapes)])
        ids, _ = self._tokenize(text, self._counts(shapes))
        return torch.tensor(ids, dtype=torch.int64)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the prompt of a dialogue as text, for display; to tokenize it, use ``apply_chat_template``.

        In the text alone, a control token of the template and one that a user typed look the same.
        """
        text: str = self.apply_chat_template(messages, add_generation_prompt=add_generation_prompt)
        return text

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render one dialogue or a list of them; with ``tokenize`` prepare texts and images for the model.

        It differs from the method of transformers in two points: control tokens and ``<image>`` typed in a message
        always stay text, and ``assistant_masks`` come from character spans in every version of transformers.

        Args:
            conversation: Messages. An image part has its image under "image", "path", "url" or "base64".
            processor_kwargs: Image options, padding and other options of a call. Its "images" replace those of the
                messages.
            kwargs: Template variables (tools, ...); processor options are accepted here too.

        Raises:
            ValueError: Roles are out of order, images and placeholders disagree, an option is wrong, or a generation
                prompt is requested after an answer.
        """
        dialogues, batched = as_dialogues(conversation)
        for messages in dialogues:
            check_messages(messages, to_answer=add_generation_prompt)
        template = chat_template or self.chat_template
        options, variables = self._split_options(kwargs)
        variables["add_generation_prompt"] = add_generation_prompt
        if not tokenize:
            plain = (plain_messages(messages) for messages in dialogues)
            texts = [render(template, messages, self._special_tokens, **variables)[0] for messages in plain]
            return texts if batched else texts[0]
        wanted = {"with_answers": return_assistant_tokens_mask, **variables}
        rendered = [self._render(messages, template, **wanted) for messages in dialogues]
        options |= {"return_tensors": None if return_tensors == "auto" else return_tensors}
        options |= processor_kwargs or {}
        images = options.pop("images", None)
        if images is None:
            images = [list(images_of(messages)) for messages in dialogues]
        answers = [spans for _, spans in rendered] if return_assistant_tokens_mask else None
        data = self._process([text for text, _ in rendered], images, answers, **options)
        return data if return_dict else data["input_ids"]

    def __call__(self, images: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Prepare images and texts with one ``<image>`` for each image.

        Args:
            images: One image, a flat list over all texts, or a list for each text; loaded, or by path or
                URL.
            text: One prompt or several.
            kwargs: Image options, and padding, return_tensors, return_offsets_mapping and the other text
                options of transformers. Truncation is rejected: it would split images.

        Returns:
            input_ids and attention_mask for texts, pixel_values and image_sizes for images.

        Raises:
            ValueError: Neither images nor text are given, they disagree, or an option is wrong.
        """
        if images is None and text is None:
            raise ValueError("nothing to process: pass images, text or both")
        texts = None if text is None else [text] if isinstance(text, str) else list(text)
        return self._process(texts, images, **kwargs)

    def replace_image_token(self, image_inputs: Any, image_idx: int, **kwargs: Any) -> str:
        """Return the image tokens that replace ``<image>`` for one processed image (hook of transformers and vLLM)."""
        return self.image_token * self._counts([image_inputs["image_sizes"][image_idx]])[0]

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Sequence[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Return the numbers of visual tokens of images of these original (height, width) (vLLM's hook)."""
        if image_sizes is None:
            return MultiModalData()
        given = self._sorted_options(kwargs)["images_kwargs"]
        options = {name: given[name] for name in IMAGE_OPTIONS if name in given}
        shapes = [self.image_processor.resized_shape(*size, **options) for size in image_sizes]
        return MultiModalData(num_image_tokens=self._counts(shapes), num_image_patches=[1] * len(shapes))

    def _process(
        self,
        texts: list[str] | None,
        images: Any,
        answers: list[list[Span]] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process a call; ``answers`` are spans in each unexpanded text, returned as ``assistant_masks``."""
        _check_typos(kwargs)
        options = self._sorted_options(kwargs)
        flat, per_text = flatten_images(images)
        if texts is not None:
            check_counts(texts, per_text)
        shown = self.image_processor(flat, **options["images_kwargs"]) if flat else {}
        data: dict[str, Any] = {}
        if texts is not None:
            data = self._text_inputs(texts, shown, answers, options["text_kwargs"])
        return BatchFeature(
            {**data, **shown},
            tensor_type=options["text_kwargs"].get("return_tensors"),
            skip_tensor_conversion=["text_replacement_offsets"],
        )

    def _text_inputs(
        self,
        texts: list[str],
        shown: Mapping[str, Any],
        answers: list[list[Span]] | None,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Tokenize and pad; each key of the result has one list for each text."""
        if options.get("truncation"):
            raise ValueError("truncation would cut images in two: lower resolution or max_visual_tokens instead")
        special = options.get("add_special_tokens", True)
        rows = self._tokenize_all(texts, shown, special)
        pad = Padding.from_options(self.tokenizer, options, max(len(ids) for ids, _ in rows))
        data: dict[str, Any] = {"input_ids": [pad(ids, self.tokenizer.pad_token_id) for ids, _ in rows]}
        if options.get("return_attention_mask") is not False:
            data["attention_mask"] = [pad([1] * len(ids), 0) for ids, _ in rows]
        if options.get("return_mm_token_type_ids"):
            data["mm_token_type_ids"] = [
                pad([int(token == self.image_token_id) for token in ids], 0) for ids, _ in rows
            ]
        if answers is not None:
            masks = (overlapping(spans, own) for (_, spans), own in zip(rows, answers, strict=True))
            data["assistant_masks"] = [pad([int(inside) for inside in mask], 0) for mask in masks]
        return data | self._offsets(texts, shown, options, pad)

    def _tokenize_all(self, texts: list[str], shown: Mapping[str, Any], special: bool) -> list[Tokens]:
        counts = iter(self._counts(shown["image_sizes"] if shown else []))
        own_counts = [[next(counts) for _ in range(text.count(IMAGE_TOKEN))] for text in texts]
        return [
            self._tokenize(text, own, add_special_tokens=special) for text, own in zip(texts, own_counts, strict=True)
        ]

    def _offsets(
        self, texts: list[str], shown: Mapping[str, Any], options: dict[str, Any], pad: Padding
    ) -> dict[str, Any]:
        """Return what was asked about the expanded texts: spans of the tokens, spans of the replacements."""
        data: dict[str, Any] = {}
        number = len(shown["image_sizes"]) if shown else 0
        replacements = [self.replace_image_token(shown, index) for index in range(number)]
        expanded, offsets = self.get_text_with_replacements(list(texts), replacements)
        if options.get("return_offsets_mapping"):
            special = options.get("add_special_tokens", True)
            spans = (self._tokenize(text, add_special_tokens=special)[1] for text in expanded)
            data["offset_mapping"] = [pad(row, (0, 0)) for row in spans]
        if options.get("return_text_replacement_offsets"):
            data["text_replacement_offsets"] = offsets
        return data

    def _render(
        self, messages: Sequence[Message], template: str, *, with_answers: bool, **variables: Any
    ) -> tuple[str, list[Span]]:
        """Render with typed control tokens marked, and find the spans of the answers that are learned."""
        control_tokens = self._chunks.control_tokens
        plain = plain_messages(messages, control_tokens)
        text, answers = render(template, plain, self._special_tokens, **variables)
        if with_answers and not answers:
            answers = locate_answers(template, plain, self._special_tokens, control_tokens)
        return text, learned_spans(messages, answers) if with_answers else answers

    def _tokenize(self, text: str, counts: Sequence[int] | None = None, *, add_special_tokens: bool = True) -> Tokens:
        return self._chunks(self.tokenizer.backend_tokenizer, text, counts, add_special_tokens)

    def _counts(self, image_sizes: Iterable[Sequence[int]]) -> list[int]:
        """Return the visual tokens of images of these resized (height, width)."""
        stride = self.image_processor.output_stride
        return [num_image_tokens(int(height), int(width), stride) for height, width in image_sizes]

    def _sorted_options(self, kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Sort the options of a call into text_kwargs and images_kwargs, as transformers does."""
        merged = merge_processor_kwargs(self, self.valid_processor_kwargs, self.tokenizer.init_kwargs, **kwargs)
        # newer versions of transformers keep a few text options at the top level
        top_level = {name: value for name, value in merged.items() if name.startswith("return_")}
        return {"text_kwargs": top_level | merged["text_kwargs"], "images_kwargs": merged["images_kwargs"]}

    def _split_options(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split keywords into processor options and template variables, without what is always so here."""
        _check_typos(kwargs)
        names = {*TextKwargs.__annotations__, *self.image_processor.valid_kwargs.__annotations__}
        always = {"sanitize_control_tokens", "load_audio_from_video"}
        options = {name: value for name, value in kwargs.items() if name in names - always}
        variables = {name: value for name, value in kwargs.items() if name not in names | always}
        return options, variables


def _add_image_token(tokenizer: PreTrainedTokenizerBase) -> int:
    if IMAGE_TOKEN not in tokenizer.get_added_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
    return int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))


def _prepare_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:  # padding is masked out, so any token will do
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token


def _check_typos(names: Iterable[str]) -> None:
    """Raise a ValueError for a misspelled image option, which transformers would ignore with a warning."""
    known = {*TextKwargs.__annotations__, *ImagesKwargs.__annotations__, *IMAGE_OPTIONS}
    for name in names:
        near = get_close_matches(name, IMAGE_OPTIONS, n=1, cutoff=0.8)
        if name not in known and near:
            raise ValueError(f"unknown option {name!r}: did you mean {near[0]!r}?")
