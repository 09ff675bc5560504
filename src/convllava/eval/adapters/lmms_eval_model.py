"""The model class for lmms-eval (0.7).

Usage: ``lmms-eval --model convllava --model_args pretrained=nano --tasks ...``.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lmms_eval.api.model import lmms

from ...image_options import ImageOptions
from ...inference import Generator, Request, load_pretrained
from ..answering import AUTO_BATCH_SIZE, answer_all


class ConvLlava(lmms):
    """Answers lmms-eval's requests.

    Args:
        pretrained: The bundled ``nano``, a checkpoint directory or a hub id.
        device: Device, as for `load_pretrained`.
        dtype: Precision, as for `load_pretrained`.
        batch_size: Number of requests answered at a time, or "auto".
        prompt_format: Prompt format that replaces the checkpoint's.
        max_batch_size: Unused; lmms-eval passes it to every model.
        **image_options: Fields of `ImageOptions`; by default those of the checkpoint.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "nano",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        prompt_format: str | None = None,
        max_batch_size: int | None = None,
        **image_options: Any,
    ) -> None:
        super().__init__()
        model, processor = load_pretrained(pretrained, device=device, dtype=dtype)
        if prompt_format is not None:
            processor.set_prompt_format(prompt_format)
        size = AUTO_BATCH_SIZE if str(batch_size).startswith("auto") else int(batch_size)
        self._generator = Generator(model, processor, max_batch=size)
        self._image = _image_options(**image_options)
        self._rank = int(os.environ.get("RANK", "0"))
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the answers to requests, in order."""
        return answer_all(self._generator, [partial(self._request, *request.args) for request in requests])

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Reject the request type.

        Raises:
            ValueError: Always.
        """
        raise ValueError("convllava answers generate_until tasks only: choose the generative variant of the task")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Reject the request type.

        Raises:
            ValueError: Always.
        """
        raise ValueError("convllava answers single-round tasks only")

    def _request(self, ctx: str, doc_to_messages: Any, options: Any, doc_id: Any, task: str, split: str) -> Request:
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        return Request(messages=list(map(_message, messages)), **generation_options(options), image_options=self._image)


def generation_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return lmms-eval's generation options as fields of a request.

    Raises:
        ValueError: Beam search is requested.
    """
    if (options.get("num_beams") or 1) > 1:
        raise ValueError(
            f"num_beams is {options['num_beams']}, but only greedy decoding and sampling are supported: set 1"
        )
    stop = options.get("until") or ()
    stops = [stop] if isinstance(stop, str) else [text for text in stop if text]
    found: dict[str, Any] = {"stop": stops, "stop_on_repetition": False}  # as other models in lmms-eval
    if options.get("max_new_tokens") is not None:
        found["max_new_tokens"] = int(options["max_new_tokens"])
    if options.get("do_sample", True) and options.get("temperature"):
        found |= {"temperature": float(options["temperature"]), "top_p": float(options.get("top_p") or 1.0)}
    return found


def _image_options(
    image_aspect_ratio: str | None = None, resolution: int | None = None, max_visual_tokens: int | None = None
) -> ImageOptions:
    """Return image options; lmms-eval passes numbers as text."""
    return ImageOptions(
        image_aspect_ratio,
        None if resolution is None else int(resolution),
        None if max_visual_tokens is None else int(max_visual_tokens),
    )


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its images under the key "image", as requests have them."""
    return {"role": message["role"], "content": [_part(part) for part in message["content"]]}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image":
        return {"type": "image", "image": part["url"]}
    raise ValueError(f"a message has a part of type {part['type']!r}: only text and images are supported")
