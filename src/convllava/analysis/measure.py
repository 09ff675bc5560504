"""Measurement of the times that ``calibration`` fits."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from ..model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaImageProcessor
from .budget import context_of
from .calibration import (
    Calibration,
    HeldOut,
    calibration_key,
    device_name,
    encode_terms,
    fit,
    prefill_terms,
    prepare_terms,
)

BUSY_LOAD = 0.75
"""Load average per core from which measured times are unreliable."""

OnProgress = Callable[[str], None]

GRIDS = ((1, 1), (2, 2), (3, 4), (4, 4), (6, 6), (8, 8), (12, 12), (16, 16), (24, 24))
"""Image sizes that the fit uses, as rows and columns of visual tokens."""

HELD_OUT_GRIDS = ((2, 3), (3, 3), (2, 8), (7, 4), (5, 10), (10, 10), (9, 20), (20, 20))
"""Image sizes that the fit is tested on, some of them elongated."""

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Prompt lengths that prefill is measured at, in tokens."""

SOURCES = ((480, 640), (1200, 900), (2000, 3000), (4000, 3000))
"""(height, width) of the JPEGs whose preparation is measured."""


@dataclass(frozen=True)
class Plan:
    """Extent of a measurement.

    Attributes:
        repeats: Repetitions of each measurement; the shortest time counts.
        seconds: Longest pass; larger cases than the first that exceeds it are left out.
        grids: Image sizes that the fit uses, as rows and columns of visual tokens.
        held_out: Image sizes that the fit is tested on, likewise.
        lengths: Prompt lengths, in tokens.
        sources: (height, width) of the JPEGs.
    """

    repeats: int = 7
    seconds: float = 10.0
    grids: Sequence[tuple[int, int]] = GRIDS
    held_out: Sequence[tuple[int, int]] = HELD_OUT_GRIDS
    lengths: Sequence[int] = LENGTHS
    sources: Sequence[tuple[int, int]] = SOURCES


FULL = Plan()
QUICK = replace(FULL, repeats=5, grids=GRIDS[:6], held_out=HELD_OUT_GRIDS[:4], lengths=LENGTHS[:5], sources=SOURCES[:2])


def calibrate(
    config: ConvLlavaConfig,
    name: str,
    *,
    device: torch.device,
    dtype: str,
    plan: Plan = FULL,
    on_progress: OnProgress = lambda text: None,
) -> Calibration:
    """Measure a model of this configuration (with random weights) on a device and fit its times.

    Args:
        config: Configuration of the model.
        name: Name of the model, for the report.
        device: Device to measure.
        dtype: Precision of the weights.
        plan: Extent of the measurement.
        on_progress: Called with a line of text after each measurement.

    Raises:
        ValueError: The vision encoder takes images of one size only (CLIP), so that there is nothing to fit.
    """
    if not hasattr(config.vision_config, "output_stride"):
        raise ValueError(f"{name} takes images of one size only, so there is nothing to calibrate")
    timed = TimedModel(_build(config, device, dtype), plan, on_progress)
    prepare, encode, prefill = timed.prepare(), timed.encode(), timed.prefill()
    calibration = Calibration(
        model=name,
        key=calibration_key(config, device, dtype),
        device=device_name(device),
        dtype=dtype,
        threads=torch.get_num_threads(),
        torch_version=torch.__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        prepare=prepare,
        encode=encode,
        prefill=prefill,
    )
    return replace(calibration, held_out=tuple(timed.held_out(calibration)))


def busy_warning(load: float | None = None, cores: int | None = None) -> str:
    """Return a warning if other programs keep the processor busy, otherwise an empty string.

    Args:
        load: Load average; by default this machine's over the last minute.
        cores: Number of cores; by default this machine's.
    """
    if load is None:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = cores or os.cpu_count() or 1
    if load < BUSY_LOAD * cores:
        return ""
    return (
        f"the machine is busy (load {load:.1f} on {cores} cores): times will be too long and scattered; calibrate "
        "when it is idle"
    )


def _build(config: ConvLlavaConfig, device: torch.device, dtype: str) -> ConvLlavaForConditionalGeneration:
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    return model.eval()


class TimedModel:
    """A model on a device, whose steps are timed and fitted."""

    def __init__(self, model: ConvLlavaForConditionalGeneration, plan: Plan, on_progress: OnProgress) -> None:
        self.model = model
        self.plan = plan
        self._report = on_progress
        self._stride = model.config.output_stride
        self._context = context_of(model.config)

    def prepare(self) -> tuple[float, ...]:
        """Return the fitted coefficients of decoding, resizing and normalizing a JPEG."""
        shapes = [self._shape(grid) for grid in self.plan.grids[:: max(1, len(self.plan.grids) // 4)]]
        images = {source: jpeg(*source) for source in self.plan.sources}
        cases = [(source, shown) for source in images for shown in shapes]
        seconds = self._shortest([partial(prepare_image, images[source], shown) for source, shown in cases])
        self._report(f"prepared {len(cases)} images")
        return fit([prepare_terms(*case) for case in cases], seconds)

    def encode(self) -> tuple[float, ...]:
        """Return the fitted coefficients of the vision encoder and the projector."""
        shapes = [self._shape(grid) for grid in self.plan.grids]
        seconds = self._shortest([partial(self._encode, torch.zeros(1, 3, *shown)) for shown in shapes])
        for shown, best in zip(shapes, seconds, strict=False):
            self._report(f"encoded {shown[1]}x{shown[0]} in {best * 1000:.1f} ms")
        return fit([encode_terms(shown) for shown in shapes[: len(seconds)]], seconds)

    def prefill(self) -> tuple[float, ...]:
        """Return the fitted coefficients of prefill."""
        lengths = [length for length in self.plan.lengths if length <= self._context]
        prompts = [torch.ones(1, length, dtype=torch.int64) for length in lengths]
        seconds = self._shortest([partial(self._prefill, prompt, None) for prompt in prompts])
        for length, best in zip(lengths, seconds, strict=False):
            self._report(f"prefilled {length} tokens in {best * 1000:.1f} ms")
        return fit([prefill_terms(length) for length in lengths[: len(seconds)]], seconds)

    def held_out(self, calibration: Calibration) -> list[HeldOut]:
        """Measure requests that the fit did not use, from the JPEG to the first logits."""
        cases, runs = [], []
        text = 24
        for number, (rows, columns) in enumerate(self.plan.held_out):
            shown = self._shape((rows, columns))
            source = (int(shown[0] * 1.7) + 60 * number, int(shown[1] * 1.7) + 60 * number)
            estimated = calibration.first_token_seconds(source, shown, visual_tokens=rows * columns, text_tokens=text)
            if rows * columns + text <= self._context:
                cases.append((source, shown, estimated))
                runs.append(partial(self._request, jpeg(*source), shown, text))
        found = []
        for (source, shown, estimated), best in zip(cases, self._shortest(runs), strict=False):
            found.append(HeldOut(source, shown, text, best, estimated))
            self._report(f"{shown[1]}x{shown[0]}: {best * 1000:.1f} ms, estimated {estimated * 1000:.1f} ms")
        return found

    def _shape(self, grid: tuple[int, int]) -> tuple[int, int]:
        return grid[0] * self._stride, grid[1] * self._stride

    def _request(self, data: bytes, shown: tuple[int, int], text: int) -> None:
        features = self._encode(prepare_image(data, shown))
        image_tokens = torch.full((1, len(features)), self.model.config.image_token_id)
        self._prefill(torch.cat([image_tokens, torch.ones(1, text, dtype=torch.int64)], dim=1), features)

    def _encode(self, pixels: Tensor) -> Tensor:  # (1, 3, H, W) -> (visual tokens, hidden size)
        return self.model.get_image_features(pixels.to(self.model.device)).pooler_output[0]

    def _prefill(self, input_ids: Tensor, features: Tensor | None) -> None:
        embeddings = self.model.get_input_embeddings()(input_ids.to(self.model.device))
        if features is not None:
            mask = (input_ids == self.model.config.image_token_id)[..., None].to(self.model.device)
            embeddings = embeddings.masked_scatter(mask, features)
        self.model(inputs_embeds=embeddings, logits_to_keep=1, use_cache=True)

    @torch.inference_mode()
    def _shortest(self, runs: Sequence[Callable[[], object]]) -> list[float]:
        """Return the shortest time of each run in seconds, up to the first run that exceeds ``plan.seconds``.

        The shortest, since other programs can only add to a time; in rounds, so that a busy moment does not affect all
        repetitions of one run.
        """
        best: list[float] = []
        for run in runs:
            run()
            best.append(self._seconds(run))
            if best[-1] > self.plan.seconds:
                break
        for _ in range(self.plan.repeats - 1):
            best = [min(least, self._seconds(run)) for least, run in zip(best, runs, strict=False)]
        return best

    def _seconds(self, run: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()


def jpeg(height: int, width: int) -> bytes:
    """Return a JPEG with as much detail as a photograph: a smooth ground with fine noise."""
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-6, 7, (height, width, 1))
    levels = (np.asarray(ground, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(levels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def prepare_image(data: bytes, shown: tuple[int, int]) -> Tensor:
    """Decode, resize and normalize a JPEG as the image processor does.

    Args:
        data: Content of the JPEG file.
        shown: (height, width) to resize to.

    Returns:
        Tensor of shape (1, 3, height, width).
    """
    with Image.open(BytesIO(data), formats=("JPEG",)) as opened:
        image = opened.convert("RGB").resize((shown[1], shown[0]), Image.Resampling.BICUBIC)
    processor = ConvLlavaImageProcessor(output_stride=1, image_aspect_ratio="native", resolution=None)
    return processor.prepare([image])[0]
