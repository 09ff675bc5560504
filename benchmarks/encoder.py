"""The vision encoder against the faster layout of transformers.ConvNextModel, and against its matrix products alone.

Same weights, same images, one process. transformers runs in {contiguous, channels_last} of each dtype; the faster
one counts. Ours runs eagerly and with its backend for inference (`set_backend`), which is what the ratios are about.
The limit is the time of the matrix products alone (stem, downsampling and pointwise layers as products of the same
sizes); the rest of the encoder's time goes to depthwise convolutions, norms and moving memory. Packed weights and
chunks that stay in a cache can make the encoder faster than the limit.

bfloat16 is measured where the processor has instructions for it (elsewhere it takes 50 times as long; --dtype forces
it), int8 against transformers in its fastest dtype on this machine. `times_default` compares with the default of
transformers: float32, contiguous.

Goals: at bfloat16 at least 0.8 of the limit and 1.4x transformers' best (CPU with AMX); at float32 1.1x; int8 2x; 5x
the default.
"""

import argparse
from collections.abc import Iterator
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from common import Report, Run, Timings, main, paired, parser, rounds_of
from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextModel

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel, nano, preset
from convllava.model.acceleration.cpu import fastest_precision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def towers(quick: bool) -> Iterator[tuple[str, ConvLlavaVisionConfig, list[int]]]:
    """Yield name, configuration and resolutions of the encoders."""
    yield "nano", nano(stages=5).vision_config, [192] if quick else [256, 512, 1024]
    if not quick:
        yield "ConvNeXt-L, five stages", preset("convllava-7b-1536").vision_config, [768, 1024, 1536]


def ours(config: ConvLlavaVisionConfig) -> ConvLlavaVisionModel:
    """Return an encoder with random weights and layer scales of a trained magnitude."""
    torch.manual_seed(0)
    tower = ConvLlavaVisionModel(config).eval()
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            if name.endswith("layer_scale_parameter"):
                weight.fill_(0.1)
    return tower


def theirs(tower: ConvLlavaVisionModel) -> ConvNextModel:
    """Return transformers' model with the same weight tensors, not copied."""
    config = tower.config
    with torch.device("meta"):
        model = ConvNextModel(
            ConvNextConfig(
                num_stages=config.num_stages,
                depths=config.depths,
                hidden_sizes=config.hidden_sizes,
                layer_norm_eps=config.layer_norm_eps,
            )
        )
    missing, unexpected = model.load_state_dict(tower.state_dict(), strict=False, assign=True)
    assert not unexpected and all(name.startswith("layernorm.") for name in missing), (missing, unexpected)
    model.layernorm = nn.LayerNorm(config.hidden_sizes[-1])  # after the feature map; ours has none
    return model.to(device=tower.device, dtype=tower.dtype).eval()


def products(config: ConvLlavaVisionConfig, batch: int, side: int, dtype: torch.dtype, device: str) -> Run:
    """Return a run of the encoder's matrix products alone."""
    sizes: list[tuple[int, int, int]] = []
    positions, inputs = batch * (side // 4) ** 2, 3 * 16
    for depth, width in zip(config.depths, config.hidden_sizes, strict=True):
        sizes.append((positions, inputs, width))  # stem or downsampling
        sizes += [(positions, width, 4 * width), (positions, 4 * width, width)] * depth
        positions, inputs = positions // 4, 4 * width
    tensors: dict[tuple[int, ...], Tensor] = {}
    for rows, columns, outputs in sizes:
        for shape in ((rows, columns), (outputs, columns)):
            tensors.setdefault(shape, torch.randn(shape, dtype=dtype, device=device))

    def run() -> None:
        for rows, columns, outputs in sizes:
            F.linear(tensors[rows, columns], tensors[outputs, columns])

    return run


@torch.inference_mode()
def measure(report: Report, name: str, config: ConvLlavaVisionConfig, side: int) -> None:
    """Time one encoder at one resolution and add a row for each precision."""
    arguments = report.arguments
    tower = ours(config).to(arguments.device)
    pixels = torch.randn(arguments.batch, 3, side, side, device=arguments.device)
    exact = tower(pixels).last_hidden_state
    default = float("nan")
    for precision in arguments.dtype or precisions(arguments.device):
        row = compare(tower, pixels, exact, precision, rounds_of(arguments))
        if precision == "float32":
            default = row.pop("default_ms")
        row.pop("default_ms", None)
        report.add(encoder=name, side=side, batch=len(pixels), precision=precision, **row)
        report.rows[-1]["times_default"] = default / row["fast_ms"]


def precisions(device: str) -> list[str]:
    """Return the precisions that this machine computes at a useful speed."""
    if device != "cpu":
        return ["float32", "bfloat16"]
    return ["float32", *(["bfloat16"] if fastest_precision() == "bfloat16" else []), "int8"]


def compare(
    tower: ConvLlavaVisionModel, pixels: Tensor, exact: Tensor, precision: str, rounds: int
) -> dict[str, object]:
    """Time the candidates in one precision; against int8, transformers runs in its fastest dtype."""
    device = pixels.device.type
    dtype = DTYPES[fastest_precision() if precision == "int8" else precision]
    fast = tower if tower.dtype == dtype else deepcopy(tower).to(dtype)
    pixels = pixels.to(dtype)
    models = {layout: theirs(fast).to(memory_format=memory) for layout, memory in LAYOUTS.items()}
    copies = {layout: pixels.contiguous(memory_format=memory) for layout, memory in LAYOUTS.items()}
    fast.set_backend(f"cpu-{precision}" if device == "cpu" else "cuda", size=tuple(pixels.shape[-2:]))
    runs: dict[str, Run] = {
        "eager": lambda: fast(pixels, output_hidden_states=True),  # which no backend serves
        "fast": lambda: fast(pixels),
        "limit": products(tower.config, len(pixels), pixels.shape[-1], dtype, device),
    }
    runs |= {layout: partial(models[layout], copies[layout]) for layout in LAYOUTS}
    timings = paired(runs, rounds, device, warm_ups=1 if device == "cpu" else 4)
    row = _row(timings) | {
        "error": _error(fast(pixels).last_hidden_state, exact),
        "their_error": _error(models["contiguous"](pixels).last_hidden_state, exact),
        "products": " ".join(getattr(fast.backend, "products", [])),
    }
    fast.set_backend("eager")
    return row


def _row(timings: Timings) -> dict[str, object]:
    best = timings.best_of(list(LAYOUTS))
    return {
        "fast_ms": 1000 * timings.median("fast"),
        "eager_ms": 1000 * timings.median("eager"),
        "transformers_ms": 1000 * timings.median(best),
        "transformers_layout": best,
        "limit_ms": 1000 * timings.median("limit"),
        "times_transformers": timings.ratio(best, "fast"),
        "of_limit": timings.ratio("limit", "fast"),
        "default_ms": 1000 * timings.median("contiguous"),
    }


def _error(features: Tensor, exact: Tensor) -> float:
    """Return the error relative to float32 features, in the Euclidean norm."""
    return float((features.float() - exact).norm() / exact.norm())


def run(report: Report) -> None:
    """Measure every encoder at every resolution."""
    for name, config, sides in towers(report.arguments.quick):
        if report.arguments.only and not name.startswith(report.arguments.only):
            continue
        for side in report.arguments.side or sides:
            measure(report, name, config, side)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--batch", type=int, default=1, help="images at a time (default: 1)")
    found.add_argument("--side", type=int, action="append", help="resolution; repeatable")
    found.add_argument("--dtype", choices=[*DTYPES, "int8"], action="append", help="precision; repeatable")
    found.add_argument("--only", choices=["nano", "ConvNeXt-L"], help="one of the encoders")
    return found


if __name__ == "__main__":
    main("encoder", run, options())
