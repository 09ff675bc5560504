"""Comparing two checkpoints: the same tensors, and the same answers to a probe."""

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
from .checkpoint import Checkpoint
from .quiet import quiet
from .shards import READ_BEFORE_RELEASE
from .tokenizers import load_tokenizer

PROBE_TEXTS = ("Describe the image.", "What is written at the top, and in which color?")
PROBE_CELLS = ((3, 4), (2, 2))
"""Rows and columns of the probe's images, in output cells."""


@dataclass(frozen=True)
class Difference:
    """Where two tensors of one name differ.

    Args:
        name: Of the tensor, as it is called here.
        reason: "only in A", "only in B", "shape" or "values".
        largest: Largest absolute difference, for values.
        at: Index of that value.
        detail: Both shapes, or both values.
    """

    name: str
    reason: str
    largest: float | None = None
    at: tuple[int, ...] | None = None
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def tensor_differences(first: Checkpoint, second: Checkpoint, tolerance: float = 0.0) -> list[Difference]:
    """Return the tensors that differ by more than ``tolerance`` anywhere, the largest difference first."""
    found = list(_differences(first, second, tolerance))
    return sorted(found, key=lambda difference: -(float("inf") if difference.largest is None else difference.largest))


def _differences(first: Checkpoint, second: Checkpoint, tolerance: float) -> Iterator[Difference]:
    tied = _tied_head(first) | _tied_head(second)
    unreleased = 0
    for name in sorted({*first.weights, *second.weights} - tied):
        if name not in first.weights or name not in second.weights:
            yield Difference(name, "only in A" if name in first.weights else "only in B")
            continue
        ours, theirs = first.weights[name], second.weights[name]
        if ours.shape != theirs.shape:
            yield Difference(name, "shape", detail=f"{list(ours.shape)} and {list(theirs.shape)}")
            continue
        rows = -max(ours.new_rows, theirs.new_rows) or None  # made up here, not part of either
        difference = _compare(name, ours.load()[:rows], theirs.load()[:rows], tolerance)
        if difference is not None:
            yield difference
        unreleased += ours.num_bytes + theirs.num_bytes
        if unreleased > READ_BEFORE_RELEASE:
            first.weights.release()
            second.weights.release()
            unreleased = 0


def _tied_head(checkpoint: Checkpoint) -> set[str]:
    return set(ConvLlavaForConditionalGeneration._tied_weights_keys) if checkpoint.config.tie_word_embeddings else set()


def _compare(name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Difference | None:
    if ours.dtype == theirs.dtype and torch.equal(ours, theirs):
        return None
    gap = (ours.float() - theirs.float()).abs()
    # NaN on both sides is the same, on one side as far apart as can be
    gap = torch.where(ours.isnan() & theirs.isnan(), torch.zeros_like(gap), gap.nan_to_num(nan=torch.inf))
    largest = float(gap.max())
    if largest <= tolerance:
        return None
    at = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
    return Difference(name, "values", largest, at, f"{float(ours[at]):.6g} and {float(theirs[at]):.6g}")


@dataclass(frozen=True)
class LogitDifference:
    """How far two models' logits are apart on the probe.

    Args:
        largest: Largest absolute difference.
        relative: The same over the largest absolute logit.
        at: Probe, position and vocabulary id of it.
        same_choice: Share of positions where both prefer the same token.
    """

    largest: float
    relative: float
    at: tuple[int, int, int]
    same_choice: float


Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


@torch.no_grad()
def logit_difference(first: Loaded, second: Loaded) -> LogitDifference:
    """Show both models the same images and texts, each through its own processor, and compare all logits.

    Raises:
        ValueError: Their processors turn the probe into different tokens or images of different shapes.
    """
    worst: LogitDifference | None = None
    agreed = positions = 0
    scale = 0.0
    for index, (text, cells) in enumerate(zip(PROBE_TEXTS, PROBE_CELLS, strict=True)):
        ours, theirs = _logits(first, text, cells), _logits(second, text, cells)
        if ours.shape[0] != theirs.shape[0]:
            raise ValueError(
                f"the two processors disagree: probe {index + 1} has {ours.shape[0]} tokens in A and "
                f"{theirs.shape[0]} in B; compare their prompt formats and image options (convllava inspect)"
            )
        columns = min(ours.shape[1], theirs.shape[1])  # <image> may have its own row in one of them
        ours, theirs = ours[:, :columns], theirs[:, :columns]
        gap = (ours - theirs).abs()
        if first[1].image_token_id == second[1].image_token_id < columns:
            gap[:, first[1].image_token_id] = 0.0  # never written by either
        position, token = (int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
        scale = max(scale, float(ours.abs().max()))
        agreed += int((ours.argmax(dim=1) == theirs.argmax(dim=1)).sum())
        positions += len(ours)
        if worst is None or float(gap.max()) > worst.largest:
            worst = LogitDifference(float(gap.max()), 0.0, (index, position, token), 0.0)
    assert worst is not None
    return LogitDifference(worst.largest, worst.largest / scale if scale else 0.0, worst.at, agreed / positions)


@torch.no_grad()
def text_difference(joined: Loaded, language_model: Path) -> LogitDifference:
    """Compare a model's logits on text alone with those of the language model that it was joined from.

    Args:
        joined: Its rows beyond the language model's vocabulary are left out.
        language_model: Directory of it, which transformers opens and runs.

    Raises:
        ValueError: Transformers cannot open it.
    """
    with quiet():
        try:
            original = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"transformers cannot open {language_model}: {str(error).splitlines()[0]}") from error
    ids = load_tokenizer(language_model)(" ".join(PROBE_TEXTS), return_tensors="pt")["input_ids"]
    theirs = original(input_ids=ids).logits[0].float()
    ours = joined[0](input_ids=ids.to(joined[0].device)).logits[0].float().cpu()[:, : theirs.shape[1]]
    gap = (ours - theirs).abs()
    position, token = (int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
    same = float((ours.argmax(dim=1) == theirs.argmax(dim=1)).float().mean())
    return LogitDifference(float(gap.max()), float(gap.max() / theirs.abs().max()), (0, position, token), same)


def _logits(loaded: Loaded, text: str, cells: tuple[int, int]) -> Tensor:
    model, processor = loaded
    options = _image_options(model, cells)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    prompt = processor.render(messages, add_generation_prompt=True)
    assert prompt.count(IMAGE_TOKEN) == 1
    batch = processor(images=_image(cells, model.config.output_stride), text=prompt, return_tensors="pt", **options)
    logits: Tensor = model(**batch.to(model.device)).logits[0]
    return logits.float().cpu()


def _image_options(model: ConvLlavaForConditionalGeneration, cells: tuple[int, int]) -> dict[str, Any]:
    if not isinstance(model.config.vision_config, ConvLlavaVisionConfig):
        return {}
    return {"image_aspect_ratio": "native", "resolution": min(cells) * model.config.output_stride}


def _image(cells: tuple[int, int], stride: int) -> np.ndarray:
    """Return noise (H, W, 3), the same in every run."""
    rows, columns = cells
    return np.random.default_rng(0).integers(0, 256, (rows * stride, columns * stride, 3), dtype=np.uint8)
