"""Where the time of one forward pass of the vision encoder goes: with its CPU backend, and transformers' model.

Shares of one pass by type of operation, from torch's profiler. They explain the ratios of `encoder.py`: both sides
compute the same products and differ in the passes over memory between them. `encoder.py` measures the times.
"""

import argparse

import torch
from common import Report, main, parser
from encoder import LAYOUTS, ours, theirs, towers
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

OPERATIONS = {
    "products": ("addmm", "::mm", "linear", "onednn"),
    "gelu": ("gelu",),
    "norm": ("native_layer_norm",),
    "sums and scales": ("add", "mul"),
    "copies": ("copy_", "cat", "contiguous", "clone"),
}
"""Substrings of operator names for each type; the first match counts."""


def operation_of(event: FunctionEvent) -> str:
    """Return the type of an operation; a convolution whose kernels have one input channel is depthwise."""
    if "convolution" in event.name:
        weight = event.input_shapes[1] if len(event.input_shapes) > 1 else []
        return "depthwise" if len(weight) == 4 and weight[1] == 1 else "products"
    return next((name for name, parts in OPERATIONS.items() if any(part in event.name for part in parts)), "rest")


def shares(run: torch.nn.Module, pixels: torch.Tensor) -> dict[str, float]:
    """Return the share of each type of operation in the time of a forward pass."""
    run(pixels)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        run(pixels)
    spent = dict.fromkeys([*OPERATIONS, "depthwise", "rest"], 0.0)
    for event in found.events():
        spent[operation_of(event)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {name: time / total for name, time in spent.items()}


@torch.inference_mode()
def run(report: Report) -> None:
    """Profile each encoder at each resolution."""
    report.arguments.rounds = 1  # one pass is profiled
    for name, config, sides in towers(report.arguments.quick):
        if report.arguments.only and not name.startswith(report.arguments.only):
            continue
        for side in report.arguments.side or sides[:2]:
            tower = ours(config)
            pixels = torch.randn(1, 3, side, side)
            for layout, memory in LAYOUTS.items():
                model = theirs(tower).to(memory_format=memory)
                measured = shares(model, pixels.contiguous(memory_format=memory))
                report.add(encoder=name, side=side, model=f"transformers, {layout}", **measured)
            tower.set_backend("cpu-float32", size=(side, side))
            report.add(encoder=name, side=side, model="convllava", **shares(tower, pixels))


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--side", type=int, action="append", help="resolution; repeatable")
    found.add_argument("--only", choices=["nano", "ConvNeXt-L"], help="one of the encoders")
    return found


if __name__ == "__main__":
    main("encoder_profile", run, options())
