"""Compare two checkpoints: their tensors, and their logits for a probe of two images and texts."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ..constants import IMAGE_TOKEN
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor, ConvLlavaVisionConfig
from ..support import first_line, quiet_transformers
from .checkpoint import Checkpoint
from .config_files import load_tokenizer
from .weights import ReadBudget

PROBE_TEXTS = ("Describe the image.", "What is written at the top, and in which color?")
PROBE_SHAPES = ((3, 4), (2, 2))
"""Heights and widths of the probe's feature maps, so that the images are this many strides high and wide."""


@dataclass(frozen=True)
class TensorDifference:
    """A difference between two tensors of one name.

    Args:
        name: The name in this package.
        reason: "only in A", "only in B", "shape" or "values".
        largest: Largest absolute difference of values.
        at: Index of that value.
        detail: Both shapes, or both values.
    """

    name: str
    reason: str
    largest: float | None = None
    at: tuple[int, ...] | None = None
    detail: str = ""


@dataclass(frozen=True)
class LogitDifference:
    """The difference between two models' logits for the probe.

    Args:
        largest: Largest absolute difference.
        relative: The same, divided by the largest absolute logit.
        at: Probe, position and vocabulary id of the largest difference.
        same_choice: Share of positions where both models prefer the same token.
    """

    largest: float
    relative: float
    at: tuple[int, int, int]
    same_choice: float


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two checkpoints.

    Args:
        num_tensors: The number of compared names.
        differences: Differing tensors, the largest difference first.
        logits: The difference of logits; None if logits were not compared.
    """

    num_tensors: int
    differences: list[TensorDifference]
    logits: LogitDifference | None = None

    @property
    def same(self) -> bool:
        """Whether no tensor differs."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return {
            "same": self.same,
            "tensors": self.num_tensors,
            "differences": [asdict(difference) for difference in self.differences],
            "logits": None if self.logits is None else asdict(self.logits),
        }


def compare_tensors(
    first: Checkpoint, second: Checkpoint, tolerance: float = 0.0, *, ignore_prefix: str | None = None
) -> Comparison:
    """Compare the tensors of two checkpoints; each is read once.

    Args:
        first: Checkpoint A.
        second: Checkpoint B.
        tolerance: Largest difference of a value that still counts as equal.
        ignore_prefix: Prefix of the tensors that are left out, such as an untrained projector's.
    """
    names = {*first.weights, *second.weights}
    if ignore_prefix is not None:
        names = {name for name in names if not name.startswith(ignore_prefix)}
    found = list(_differences(first, second, sorted(names - first.tied - second.tied), tolerance))
    found.sort(key=lambda difference: -(float("inf") if difference.largest is None else difference.largest))
    return Comparison(len(names), found)


def _differences(
    first: Checkpoint, second: Checkpoint, names: list[str], tolerance: float
) -> Iterator[TensorDifference]:
    budget = ReadBudget()
    for name in names:
        if name not in first.weights or name not in second.weights:
            yield TensorDifference(name, "only in A" if name in first.weights else "only in B")
            continue
        ours, theirs = first.weights[name], second.weights[name]
        if ours.shape != theirs.shape:
            yield TensorDifference(name, "shape", detail=f"{list(ours.shape)} and {list(theirs.shape)}")
            continue
        rows = -max(ours.new_rows, theirs.new_rows) or None  # appended rows are stored in neither
        difference = _compare(name, ours.load()[:rows], theirs.load()[:rows], tolerance)
        if difference is not None:
            yield difference
        budget.add(ours.num_bytes + theirs.num_bytes, first.weights, second.weights)


def _compare(name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> TensorDifference | None:
    if ours.dtype == theirs.dtype and torch.equal(ours, theirs):
        return None
    gap = (ours.float() - theirs.float()).abs()
    # NaN on both sides is no difference, on one side an infinite one
    gap = torch.where(ours.isnan() & theirs.isnan(), torch.zeros_like(gap), gap.nan_to_num(nan=torch.inf))
    largest = float(gap.max())
    if largest <= tolerance:
        return None
    at = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
    return TensorDifference(name, "values", largest, at, f"{float(ours[at]):.6g} and {float(theirs[at]):.6g}")


Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


@torch.no_grad()
def compare_logits(first: Loaded, second: Loaded) -> LogitDifference:
    """Compare all logits of two models for the same images and texts, each through its own processor.

    Args:
        first: Model A in float32 and its processor.
        second: Model B in float32 and its processor.

    Raises:
        ValueError: The two processors turn the probe into different numbers of tokens.
    """
    worst = LogitDifference(-1.0, 0.0, (0, 0, 0), 0.0)
    agreed = positions = 0
    scale = 0.0
    for index, (text, shape) in enumerate(zip(PROBE_TEXTS, PROBE_SHAPES, strict=True)):
        ours, theirs = _logits(first, text, shape), _logits(second, text, shape)
        if ours.shape[0] != theirs.shape[0]:
            raise ValueError(
                f"the two processors disagree: probe {index + 1} has {ours.shape[0]} tokens in A and "
                f"{theirs.shape[0]} in B; compare their prompt formats and image options (convllava inspect)"
            )
        columns = min(ours.shape[1], theirs.shape[1])  # <image> may have its own row in one of them
        ours, theirs = ours[:, :columns], theirs[:, :columns]
        gap = (ours - theirs).abs()
        if first[1].image_token_id == second[1].image_token_id < columns:
            gap[:, first[1].image_token_id] = 0.0  # never generated by either
        position, token = (int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
        scale = max(scale, float(ours.abs().max()))
        agreed += int((ours.argmax(dim=1) == theirs.argmax(dim=1)).sum())
        positions += len(ours)
        if float(gap.max()) > worst.largest:
            worst = LogitDifference(float(gap.max()), 0.0, (index, position, token), 0.0)
    return LogitDifference(worst.largest, worst.largest / scale if scale else 0.0, worst.at, agreed / positions)


@torch.no_grad()
def compare_text_logits(joined: Loaded, language_model: Path) -> LogitDifference:
    """Compare a model's logits for text alone with those of the language model that it was joined from.

    Args:
        joined: The model in float32 and its processor; rows beyond the language model's vocabulary are left out.
        language_model: Directory of the language model, which transformers loads and runs.

    Raises:
        ValueError: Transformers cannot load the language model.
    """
    with quiet_transformers():
        try:
            original = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"transformers cannot load {language_model}: {first_line(error)}") from error
    ids = load_tokenizer(language_model)(" ".join(PROBE_TEXTS), return_tensors="pt")["input_ids"]  # (1, tokens)
    theirs = original(input_ids=ids).logits[0].float()  # (tokens, vocabulary)
    ours = joined[0](input_ids=ids.to(joined[0].device)).logits[0].float().cpu()[:, : theirs.shape[1]]
    gap = (ours - theirs).abs()
    position, token = (int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
    same = float((ours.argmax(dim=1) == theirs.argmax(dim=1)).float().mean())
    return LogitDifference(float(gap.max()), float(gap.max() / theirs.abs().max()), (0, position, token), same)


def _logits(loaded: Loaded, text: str, shape: tuple[int, int]) -> Tensor:
    """Return logits (tokens, vocabulary) for one image and text."""
    model, processor = loaded
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    prompt = processor.render(messages, add_generation_prompt=True)
    if prompt.count(IMAGE_TOKEN) != 1:
        raise ValueError(f"the prompt format {processor.prompt_format!r} renders one image as {prompt!r}")
    image = _image(shape, model.config.output_stride)
    batch = processor(images=image, text=prompt, return_tensors="pt", **_image_options(model, shape))
    logits: Tensor = model(**batch.to(model.device)).logits[0]
    return logits.float().cpu()


def _image_options(model: ConvLlavaForConditionalGeneration, shape: tuple[int, int]) -> dict[str, Any]:
    if not isinstance(model.config.vision_config, ConvLlavaVisionConfig):
        return {}
    return {"image_aspect_ratio": "native", "resolution": min(shape) * model.config.output_stride}


def _image(shape: tuple[int, int], stride: int) -> np.ndarray:
    """Return a uint8 noise image (height, width, 3), the same in every run."""
    height, width = shape
    return np.random.default_rng(0).integers(0, 256, (height * stride, width * stride, 3), dtype=np.uint8)
