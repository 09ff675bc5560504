"""Where the time of one forward pass of the vision encoder goes: with its CPU backend, and transformers' model.

Shares of one pass by kind of operation, from torch's profiler. What a ratio of `encoder.py` is made of: products that
both have to do, and passes over memory between them. How long a pass takes is for `encoder.py` to say, in pairs.
"""

import argparse

import torch
from common import Report, main, parser
from encoder import LAYOUTS, ours, theirs, towers
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "products": ("addmm", "::mm", "linear", "onednn"),
    "gelu": ("gelu",),
    "norm": ("native_layer_norm",),
    "sums and scales": ("add", "mul"),
    "copies": ("copy_", "cat", "contiguous", "clone"),
}
"""Parts of operators' names; the first kind that fits counts."""


def kind_of(event: FunctionEvent) -> str:
    """Tell what an operation is for; a convolution is a depthwise one if its kernels have one input channel."""
    if "convolution" in event.name:
        weight = event.input_shapes[1] if len(event.input_shapes) > 1 else []
        return "depthwise" if len(weight) == 4 and weight[1] == 1 else "products"
    return next((kind for kind, parts in KINDS.items() if any(part in event.name for part in parts)), "rest")


def shares(run: torch.nn.Module, pixels: torch.Tensor) -> dict[str, float]:
    """Return each kind's share of the time of a forward pass."""
    run(pixels)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        run(pixels)
    spent = dict.fromkeys([*KINDS, "depthwise", "rest"], 0.0)
    for event in found.events():
        spent[kind_of(event)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: time / total for kind, time in spent.items()}


@torch.inference_mode()
def run(report: Report) -> None:
    """Profile each encoder at each resolution."""
    report.arguments.rounds = 1  # a profile is of one pass
    for name, config, sides in towers(report.arguments.quick):
        if report.arguments.only and not name.startswith(report.arguments.only):
            continue
        for side in report.arguments.side or sides[:2]:
            tower = ours(config)
            pixels = torch.randn(1, 3, side, side)
            for layout, memory in LAYOUTS.items():
                model = theirs(tower).to(memory_format=memory)
                own = shares(model, pixels.contiguous(memory_format=memory))
                report.add(encoder=name, side=side, model=f"transformers, {layout}", **own)
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
