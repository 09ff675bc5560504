"""Time to the first token on this device: measured once, fitted, and stored in a file.

The time is the sum of preparing an image (decode, resize, normalize), encoding it (vision encoder and projector) and
prefill. Each is fitted by a few non-negative terms: pixels for the first two, tokens and their square for the third,
and a constant. Times do not depend on the values of the weights, so a model with random weights is measured and a
configuration is enough.
"""

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..model import ConvLlavaConfig
from ..support import write_json

_MEGA = 1e6
FORMAT = 1
"""Version of the fitted terms; files of other versions are measured again."""


@dataclass(frozen=True)
class HeldOut:
    """Measured and estimated time of an image that the fit did not use."""

    source_size: tuple[int, int]
    shown_size: tuple[int, int]
    text_tokens: int
    measured_seconds: float
    estimated_seconds: float

    @property
    def error(self) -> float:
        """Relative error of the estimate; 0.1 is 10 % too long."""
        return self.estimated_seconds / self.measured_seconds - 1


@dataclass(frozen=True)
class Calibration:
    """Fitted times of one model on one device.

    Attributes:
        model: Name of the model as the user gave it.
        key: Hash of the model's sizes, the dtype and the device.
        device: Name of the device.
        dtype: Precision of the weights.
        threads: CPU threads of torch during the measurement.
        torch_version: Version of torch during the measurement.
        date: Day of the measurement.
        prepare: Seconds: constant, per million pixels of the file, per million pixels after resizing.
        encode: Seconds: constant, per million pixels after resizing.
        prefill: Seconds: constant, per thousand tokens, per million squared tokens.
        held_out: Errors of the estimate on images that the fit did not use.
    """

    model: str
    key: str
    device: str
    dtype: str
    threads: int
    torch_version: str
    date: str
    prepare: tuple[float, ...]
    encode: tuple[float, ...]
    prefill: tuple[float, ...]
    held_out: tuple[HeldOut, ...] = ()

    def prepare_seconds(self, source_size: tuple[int, int], shown_size: tuple[int, int]) -> float:
        """Return the time to decode, resize and normalize a JPEG."""
        return _apply(self.prepare, prepare_terms(source_size, shown_size))

    def encode_seconds(self, shown_size: tuple[int, int]) -> float:
        """Return the time of the vision encoder and the projector."""
        return _apply(self.encode, encode_terms(shown_size))

    def prefill_seconds(self, tokens: int) -> float:
        """Return the time of prefill, the logits of the last position included."""
        return _apply(self.prefill, prefill_terms(tokens))

    def first_token_seconds(
        self,
        source_size: tuple[int, int],
        shown_size: tuple[int, int],
        *,
        visual_tokens: int,
        text_tokens: int,
        images: int = 1,
    ) -> float:
        """Return the time from a request with ``images`` equal images to the first token of the answer."""
        per_image = self.prepare_seconds(source_size, shown_size) + self.encode_seconds(shown_size)
        return images * per_image + self.prefill_seconds(images * visual_tokens + text_tokens)

    @property
    def median_error(self) -> float:
        """Median absolute relative error on held-out images."""
        return float(np.median([abs(case.error) for case in self.held_out]))

    @property
    def worst_error(self) -> float:
        """Largest absolute relative error on held-out images."""
        return max(abs(case.error) for case in self.held_out)


def prepare_terms(source_size: tuple[int, int], shown_size: tuple[int, int]) -> tuple[float, ...]:
    """Return the terms that the time to prepare an image is fitted with; sizes are (height, width)."""
    return 1.0, source_size[0] * source_size[1] / _MEGA, shown_size[0] * shown_size[1] / _MEGA


def encode_terms(shown_size: tuple[int, int]) -> tuple[float, ...]:
    """Return the terms that the time to encode an image is fitted with; the size is (height, width)."""
    return 1.0, shown_size[0] * shown_size[1] / _MEGA


def prefill_terms(tokens: int) -> tuple[float, ...]:
    """Return the terms that the time of prefill is fitted with."""
    return 1.0, tokens / 1e3, tokens**2 / _MEGA


def _apply(coefficients: Sequence[float], terms: Sequence[float]) -> float:
    return sum(coefficient * term for coefficient, term in zip(coefficients, terms, strict=True))


def fit(terms: Sequence[Sequence[float]], seconds: Sequence[float]) -> tuple[float, ...]:
    """Return the non-negative coefficients with the least squared relative error.

    There are few terms, so every subset is solved, and the best solution without a negative coefficient is returned.
    """
    measured = np.asarray(seconds, dtype=np.float64)
    scaled = np.asarray(terms, dtype=np.float64) / measured[:, None]  # relative errors: the aim is 1 everywhere
    number = scaled.shape[1]
    best, least = np.zeros(number), np.inf
    for size in range(1, number + 1):
        for chosen in map(list, combinations(range(number), size)):
            solution = np.linalg.lstsq(scaled[:, chosen], np.ones(len(measured)), rcond=None)[0]
            error = float(((scaled[:, chosen] @ solution - 1) ** 2).sum())
            if (solution >= 0).all() and error < least:
                best, least = np.zeros(number), error
                best[chosen] = solution
    return tuple(map(float, best))


def calibration_key(config: ConvLlavaConfig, device: torch.device, dtype: str) -> str:
    """Return a hash of all that a calibration depends on: model sizes, dtype, device, threads, torch version."""
    facts = {
        "format": FORMAT,
        "vision": _sizes(config.vision_config.to_dict()),
        "text": _sizes(config.text_config.to_dict()),
        "device": device_name(device),
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _sizes(values: dict[str, Any]) -> dict[str, Any]:
    """Keep the values that change the computation: numbers and lists of numbers, not names or token ids."""
    numbers = {name: value for name, value in values.items() if isinstance(value, (int, list)) and "token" not in name}
    return {"model_type": values["model_type"]} | numbers


def device_name(device: torch.device) -> str:
    """Return the name of a GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor_name() if device.type == "cpu" else device.type


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def calibration_folder() -> Path:
    """Return the folder of stored calibrations, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "convllava" / "calibration"


def save_calibration(calibration: Calibration, folder: Path | None = None) -> Path:
    """Write a calibration atomically and return its path."""
    path = (folder or calibration_folder()) / f"{calibration.key}.json"
    write_json(path, asdict(calibration))
    return path


def load_calibration(
    config: ConvLlavaConfig, device: torch.device, dtype: str, folder: Path | None = None
) -> Calibration | None:
    """Return the stored calibration of this model on this device, or None if it has not been measured.

    Raises:
        ValueError: The file is damaged.
    """
    path = (folder or calibration_folder()) / f"{calibration_key(config, device, dtype)}.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        cases = tuple(HeldOut(**_with_tuples(case)) for case in values.pop("held_out"))
        return Calibration(**_with_tuples(values), held_out=cases)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and calibrate again") from error


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
