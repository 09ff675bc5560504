"""How answers were made: everything that another run must have in common to be comparable."""

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from .. import __version__
from ..inference import Generator
from .benchmarks import Benchmark, EvalSample, EvalSet, LoadOptions
from .prompts import user_message

_FAMILY_FORMATS = ("vicuna_v1", "llava_v1")


@dataclass(frozen=True)
class ImageOptions:
    """How images are shown; None takes the checkpoint's own setting."""

    image_aspect_ratio: str | None = None
    resolution: int | None = None
    max_visual_tokens: int | None = None

    def given(self) -> dict[str, Any]:
        """Return what is set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class RunOptions:
    """What a run may set itself.

    Attributes:
        load: How files are read and questions put.
        image: How images are shown.
        prompt_format: In place of the profile's.
    """

    load: LoadOptions = field(default_factory=LoadOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    prompt_format: str | None = None


def prompt_format_of(benchmark: Benchmark, options: RunOptions, processor: Any) -> str:
    """Return the conversation format of a run.

    That of the profile, for models of the Vicuna family; a checkpoint with another format of its own keeps it.
    """
    if options.prompt_format is not None:
        return options.prompt_format
    if benchmark.own_prompt_format or processor.prompt_format not in _FAMILY_FORMATS:
        return processor.prompt_format
    return benchmark.prompt_format(options.load.prompts)


@contextmanager
def use_prompt_format(processor: Any, name: str) -> Iterator[None]:
    """Render dialogues in a format meanwhile.

    Raises:
        ValueError: There is no such format.
    """
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
    """Return the protocol of a run as plain data; the processor must be in the run's prompt format already."""
    processor = generator.processor
    image = processor.image_processor
    shown = {name: getattr(image, name) for name in ("image_aspect_ratio", "resolution", "max_visual_tokens")}
    return {
        "benchmark": benchmark.name,
        "prompts": options.load.prompts,
        "prompt_format": processor.prompt_format,
        "prompt_template": processor.render([user_message([0, "QUESTION"])], add_generation_prompt=True),
        "prompt_example": example_prompt(benchmark, questions[0], processor, options.load),
        "ocr_tokens": options.load.ocr_tokens,
        "kit_compatible": options.load.kit_compatible,
        "image": {**shown, **options.image.given(), "output_stride": image.output_stride, "resample": "bicubic"},
        "decoding": {
            "method": "greedy",
            "max_new_tokens": benchmark.max_new_tokens(options.load.prompts),
            "dtype": str(generator.model.dtype).removeprefix("torch."),
        },
        "data": questions.data,
    }


def example_prompt(benchmark: Benchmark, sample: EvalSample, processor: Any, options: LoadOptions) -> str:
    """Return the prompt of a sample as text."""
    parts = benchmark.parts(sample.row, len(sample.images), options)
    return processor.render([user_message(parts)], add_generation_prompt=True)


def protocol_hash(protocol: dict[str, Any]) -> str:
    """Return a short hash of a protocol."""
    canonical = json.dumps(protocol, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def code_versions() -> dict[str, str]:
    """Return the versions that may matter to an answer."""
    packages = ("torch", "transformers", "pillow")
    return {"convllava": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in packages
    }


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return where two protocols differ, each as ``path: ours / theirs``."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for name in sorted({*ours, *theirs}):
            found += differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if ours == theirs else [f"{path}: {ours!r} / {theirs!r}"]
