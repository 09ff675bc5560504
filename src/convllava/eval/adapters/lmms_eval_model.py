"""ConvLLaVA as a chat model of lmms-eval (0.7).

``lmms-eval --model convllava --model_args pretrained=nano --tasks ...``; needs lmms-eval, which is not installed with
this package.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lmms_eval.api.model import lmms  # type: ignore[import-not-found]

from ...inference import Generator, Request, load_pretrained
from .answers import answer_all

AUTO_BATCH = 16


class ConvLlava(lmms):
    """Answers lmms-eval's requests.

    Args:
        pretrained: ``nano``, a checkpoint directory or a hub id.
        device, dtype: As for `load_pretrained`.
        batch_size: Answers at a time, or "auto".
        prompt_format: In place of the checkpoint's own conversation format.
        image_aspect_ratio, resolution, max_visual_tokens: How images are shown; by default as the checkpoint says.
        max_batch_size: Accepted, as lmms-eval hands it to every model; without effect.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "nano",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        prompt_format: str | None = None,
        image_aspect_ratio: str | None = None,
        resolution: int | None = None,
        max_visual_tokens: int | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        model, processor = load_pretrained(pretrained, device=device, dtype=dtype)
        if prompt_format is not None:
            processor.set_prompt_format(prompt_format)
        size = AUTO_BATCH if str(batch_size).startswith("auto") else int(batch_size)
        self._generator = Generator(model, processor, max_batch=size)
        self._image: dict[str, Any] = {
            "image_aspect_ratio": image_aspect_ratio,
            "resolution": None if resolution is None else int(resolution),
            "max_visual_tokens": None if max_visual_tokens is None else int(max_visual_tokens),
        }
        self._rank = int(os.environ.get("RANK", "0"))
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests, in order."""
        return answer_all(self._generator, [partial(self._request, *request.args) for request in requests])

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: this model is measured by what it writes."""
        raise ValueError("convllava answers generate_until tasks only: choose the generative variant of the task")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: only single questions are asked here."""
        raise ValueError("convllava answers single-round tasks only")

    def _request(self, ctx: str, doc_to_messages: Any, options: Any, doc_id: Any, task: str, split: str) -> Request:
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        return Request(messages=list(map(_message, messages)), **generation_options(options), **self._image)


def generation_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request understands of lmms-eval's generation options.

    Raises:
        ValueError: Beams are wanted.
    """
    if (options.get("num_beams") or 1) > 1:
        raise ValueError(
            f"num_beams is {options['num_beams']}, but only greedy answers and drawing are supported: set 1"
        )
    stop = options.get("until") or ()
    found: dict[str, Any] = {"stop": [stop] if isinstance(stop, str) else [text for text in stop if text]}
    if options.get("max_new_tokens") is not None:
        found["max_new_tokens"] = int(options["max_new_tokens"])
    if options.get("do_sample", True) and options.get("temperature"):
        found |= {"temperature": float(options["temperature"]), "top_p": float(options.get("top_p") or 1.0)}
    return found


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its images under "image", where requests look for them."""
    return {"role": message["role"], "content": [_part(part) for part in message["content"]]}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image":
        return {"type": "image", "image": part["url"]}
    raise ValueError(f"a message holds a part of type {part['type']!r}: text and images only")
