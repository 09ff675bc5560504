"""The protocol of a run: everything that another run must have in common to be comparable."""

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import torch

from .. import __version__
from ..image_options import IMAGE_OPTIONS, ImageOptions
from ..inference import Generator
from ..support import dtype_name
from .benchmark import Benchmark, EvalSample, EvalSet, LoadOptions
from .prompts import user_message

_VICUNA_FORMATS = ("vicuna_v1", "llava_v1")


@dataclass(frozen=True)
class DecodingOptions:
    """Options against repetition; the paper's protocol has none of them.

    Attributes:
        repetition_penalty, no_repeat_ngram_size, no_repeat_ngram_window: Same as in `Request`.
        stop_on_repetition: Same as in `Request`, but off by default.
    """

    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    no_repeat_ngram_window: int | None = None
    stop_on_repetition: bool = False

    def given(self) -> dict[str, Any]:
        """Return the options that change something."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that are part of its protocol.

    Attributes:
        load: Options of the prompts.
        image: Options of image preprocessing.
        prompt_format: Prompt format that replaces the profile's.
        decoding: Options against repetition.
    """

    load: LoadOptions = field(default_factory=LoadOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    prompt_format: str | None = None
    decoding: DecodingOptions = field(default_factory=DecodingOptions)


def prompt_format_of(benchmark: Benchmark, options: RunOptions, checkpoint_format: str) -> str:
    """Return the prompt format of a run.

    The profile's format is for models of the Vicuna family; a checkpoint with another format keeps it.

    Args:
        benchmark: The benchmark.
        options: Options of the run.
        checkpoint_format: The checkpoint's own prompt format.
    """
    if options.prompt_format is not None:
        return options.prompt_format
    if benchmark.keeps_prompt_format or checkpoint_format not in _VICUNA_FORMATS:
        return checkpoint_format
    return benchmark.prompt_format(options.load.prompts)


@contextmanager
def use_prompt_format(generator: Generator, name: str) -> Iterator[None]:
    """Set the prompt format of the generator's processor inside the block.

    Raises:
        ValueError: The format is unknown.
    """
    processor = generator.processor
    before = processor.prompt_format, processor.chat_template
    if name != processor.prompt_format:
        processor.set_prompt_format(name)
    try:
        yield
    finally:
        processor.prompt_format, processor.chat_template = before


def describe_protocol(
    benchmark: Benchmark, questions: EvalSet, generator: Generator, options: RunOptions
) -> dict[str, Any]:
    """Return the protocol of a run as plain data; the processor must have the run's prompt format already."""
    processor = generator.processor
    image_processor = processor.image_processor
    image = {name: getattr(image_processor, name) for name in IMAGE_OPTIONS} | options.image.given()
    if image["min_visual_tokens"] is None:
        del image["min_visual_tokens"]  # a later option; its absence keeps the hashes of earlier predictions valid
    return {
        "benchmark": benchmark.name,
        "prompts": options.load.prompts,
        "prompt_format": processor.prompt_format,
        "prompt_template": processor.render([user_message([0, "QUESTION"])], add_generation_prompt=True),
        "prompt_example": rendered_prompt(benchmark, questions[0], generator, options.load),
        "ocr_tokens": options.load.ocr_tokens,
        "kit_compatible": False,  # a removed option; the key keeps the hashes of earlier predictions valid
        "image": {
            **image,
            "output_stride": image_processor.output_stride,
            "resample": "bicubic",
        },
        "decoding": {
            "method": "greedy",
            "max_new_tokens": benchmark.max_new_tokens(options.load.prompts),
            "dtype": dtype_name(generator.model.dtype),
            **options.decoding.given(),
        },
        "data": questions.data,
    }


def rendered_prompt(benchmark: Benchmark, sample: EvalSample, generator: Generator, options: LoadOptions) -> str:
    """Return the prompt of a sample as the model is shown it, with ``<image>`` for each image."""
    messages, _ = benchmark.messages(sample.row, len(sample.images), options)
    return generator.processor.render(messages, add_generation_prompt=True)


def protocol_hash(protocol: dict[str, Any]) -> str:
    """Return a short hash of a protocol."""
    canonical = json.dumps(protocol, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def model_fingerprint(model: torch.nn.Module) -> str:
    """Return the SHA-256 sum over (name, dtype, shape, bytes) of all tensors, sorted by name, in hexadecimal.

    It describes the model as loaded: the same checkpoint in another precision has another fingerprint.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def code_versions() -> dict[str, str]:
    """Return the versions of the software that an answer may depend on."""
    packages = ("torch", "transformers", "pillow")
    return {"convllava": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in packages
    }
