"""The published 7B model with random weights on this machine: created, loaded, run, quantized, converted.

    python benchmarks/full_size.py make full/ours                 # 14.8 GB of random bfloat16; takes minutes
    python benchmarks/full_size.py run full/ours --json plain.json
    python benchmarks/full_size.py run full/ours --quantize int8 --reference plain.json.logits
    python benchmarks/full_size.py convert full/ours full/again   # peak memory of a conversion

Every step is a process, so that its peak resident memory can be measured. ``--reduced`` creates a model of a few
megabytes with the same code, to check that everything works.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

from convllava.convert import OutputTensor, convert, expected_shapes, parse_size, write_weights
from convllava.inference import Generator, Request, load_pretrained
from convllava.model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, build_nano_processor, preset
from convllava.support import atomic_directory

QUESTION = "Describe this image in detail."

COMPARED_AT = 384
"""Side of the image in pixels at which logits are compared; the full image would cost a second prefill."""


@dataclass(frozen=True)
class RandomWeight:
    """A stand-in for a stored tensor, with values that keep activations finite through any number of layers."""

    name: str
    shape: tuple[int, ...]

    dtype = torch.bfloat16

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    @property
    def files(self) -> "RandomWeight":
        return self

    def release(self) -> None:
        """Do nothing; there are no resources to release."""

    def load(self) -> torch.Tensor:
        if self.name.endswith("layer_scale_parameter"):
            return torch.full(self.shape, 0.1, dtype=self.dtype)
        if len(self.shape) == 1:
            is_scale = "norm" in self.name and self.name.endswith("weight")
            return torch.full(self.shape, float(is_scale), dtype=self.dtype)
        inputs, wanted = torch.Size(self.shape[1:]).numel(), torch.Size(self.shape).numel()
        values = noise().roll(sum(self.name.encode())) * inputs**-0.5
        return values.repeat(-(-wanted // len(values)))[:wanted].reshape(self.shape)


@cache
def noise() -> torch.Tensor:
    """Return normal values, drawn once, since drawing billions would take most of the time.

    Their number is prime, so that no two rows of a matrix are equal.
    """
    return torch.randn(4_194_301, generator=torch.Generator().manual_seed(0)).bfloat16()


def configuration(reduced: bool) -> ConvLlavaConfig:
    """Return the published configuration at 1536 pixels, or one of the same form and a few megabytes."""
    config = preset("convllava-7b-1536")
    if reduced:
        values = config.to_dict()
        values["vision_config"] |= {"depths": [1, 1, 2, 1, 1], "hidden_sizes": [16, 32, 64, 128, 256]}
        small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 32}
        values["text_config"] |= {**small, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 1000}
        config = ConvLlavaConfig.from_dict(values | {"resolution": 256, "image_token_id": None})
    config.prompt_format = "tokenizer"  # the tokenizer is that of nano: its ids fit into any vocabulary
    return config


def make(folder: Path, *, reduced: bool) -> dict[str, Any]:
    """Write the model, tensor by tensor."""
    config = configuration(reduced)
    processor = build_nano_processor(image_aspect_ratio="pad", resolution=config.resolution)
    config.image_token_id = processor.image_token_id
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(processor.tokenizer, name))
    config.architectures = [ConvLlavaForConditionalGeneration.__name__]
    config.dtype = torch.bfloat16
    weights = [RandomWeight(name, shape) for name, shape in sorted(expected_shapes(config).items())]
    tensors = [OutputTensor(weight.name, weight, weight.dtype) for weight in weights]  # type: ignore[arg-type]
    with atomic_directory(folder, sum(tensor.num_bytes for tensor in tensors)) as unfinished:
        config.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        write_weights(unfinished, tensors, parse_size("100KB" if reduced else "5GB"))
    return {"parameters": sum(weight.num_bytes // 2 for weight in weights)}


def run(folder: Path, *, quantize: str | None, reference: Path | None, out: Path | None, tokens: int) -> dict[str, Any]:
    """Load the model, answer one question about one image at its resolution, and measure time and memory."""
    start = time.perf_counter()
    model, processor = load_pretrained(folder, dtype="bfloat16", device="cpu", quantize=quantize)
    loaded = time.perf_counter() - start
    side = model.config.resolution
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    request = Request.of_question(QUESTION, [image], max_new_tokens=tokens)
    (answer,) = Generator(model, processor).generate([request])
    timings = answer.timings
    written = len(answer.token_ids)
    rest = timings.total_seconds - timings.first_token_seconds
    figures: dict[str, Any] = {
        "visual_tokens": answer.num_image_tokens,
        "load_seconds": loaded,
        "encode_seconds": timings.encode_seconds,
        "first_token_seconds": timings.first_token_seconds,
        "tokens_per_second": (written - 1) / rest if written > 1 and rest > 0 else None,
        "new_tokens": written,
    }
    if reference is not None:
        figures |= error_against(torch.load(reference, weights_only=True), first_logits(model, processor, image))
    elif out is not None:
        torch.save(first_logits(model, processor, image), f"{out}.logits")
    return figures


@torch.no_grad()
def first_logits(model: Any, processor: Any, image: np.ndarray) -> torch.Tensor:
    """Return the logits of the answer's first token, with a small image."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    batch = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
        processor_kwargs={"resolution": min(COMPARED_AT, model.config.resolution)},
    )
    logits: torch.Tensor = model(**batch, logits_to_keep=1).logits[0, -1].float()
    return logits


def error_against(reference: torch.Tensor, logits: torch.Tensor) -> dict[str, float]:
    """Return the differences of logits from those of the unquantized model."""
    difference = (logits - reference).norm() / reference.norm()
    divergence = torch.nn.functional.kl_div(
        logits.log_softmax(0), reference.log_softmax(0), log_target=True, reduction="sum"
    )
    return {"relative_error_of_logits": float(difference), "divergence_in_nats": float(divergence)}


def peak_gibibytes() -> float | None:
    """Return the largest resident memory of this process so far, mapped files included."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def report(figures: Mapping[str, Any], out: Path | None) -> None:
    """Print the figures, and write them to a file if one is given."""
    for name, value in figures.items():
        print(f"{name:26} {value:.4g}" if isinstance(value, float) else f"{name:26} {value}")
    if out is not None:
        out.write_text(json.dumps(dict(figures), indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run one step from the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("step", choices=("make", "run", "convert"))
    options.add_argument("folder", type=Path)
    options.add_argument("destination", type=Path, nargs="?", help="destination of convert")
    options.add_argument("--reduced", action="store_true", help="create a model of a few megabytes")
    options.add_argument("--quantize", choices=("int8", "nf4"))
    options.add_argument("--reference", type=Path, help="file with the logits of an unquantized run to compare with")
    options.add_argument("--to", default="convllava", help="layout to convert to")
    options.add_argument("--tokens", type=int, default=16, help="tokens of the answer")
    options.add_argument("--threads", type=int, help="threads of torch")
    options.add_argument("--json", type=Path, help="JSON file for the figures; the logits are written next to it")
    given = options.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    start = time.perf_counter()
    if given.step == "make":
        figures = make(given.folder, reduced=given.reduced)
    elif given.step == "run":
        out = given.json
        figures = run(given.folder, quantize=given.quantize, reference=given.reference, out=out, tokens=given.tokens)
    else:
        if given.destination is None:
            options.error("convert needs a destination")
        figures = {"bytes": convert(given.folder, given.destination, to=given.to).num_bytes}
    figures |= {"seconds": time.perf_counter() - start, "peak_resident_gib": peak_gibibytes()}
    report(figures, given.json)


if __name__ == "__main__":
    main()
