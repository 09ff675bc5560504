"""Output of ``convllava train --dry-run``: tables, or one JSON object."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..support import duration
from . import options as opt
from .tables import Column, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from ..train import Plan, Recipe

FULL_RATE_TFLOPS = 312.0
"""Peak dense bfloat16 rate of NVIDIA A100 and A800, the paper's devices (section 4.1)."""

_WIDTH_OF_FILES = 120
"""Characters per line in a file or pipe."""


def print_plan(
    chain: "Sequence[tuple[Recipe, Plan]]", device_memory: float | None, *, seconds_here: float | None, as_json: bool
) -> None:
    """Print the plan of the last recipe of a chain.

    Args:
        chain: Recipes and their plans, in the order of training. Those before the last one are used for costs that were
            reported for several training stages together.
        device_memory: Memory of one device, in bytes; None if unknown.
        seconds_here: Estimated seconds of the run on this machine; None if unknown.
        as_json: Whether to print one JSON object.
    """
    recipe, plan = chain[-1]
    comparison = _comparison(chain)
    if as_json:
        opt.say(json.dumps(_as_data(plan, comparison) | {"seconds_here": seconds_here}))
        return
    console = opt.console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH_OF_FILES)
    _print_modules(console, plan)
    if len(plan.data) > 1:
        _print_data(console, plan)
    lines = [*_samples(recipe, plan), *_flops(plan), *_here(seconds_here)]
    lines += [*_memory(recipe, plan, device_memory), *comparison]
    for line in [*lines, *(f"checked: {promise}" for promise in plan.protocol)]:
        console.print(line, soft_wrap=True)


def _as_data(plan: "Plan", comparison: list[str]) -> dict[str, Any]:
    means = ("visual_tokens", "text_tokens", "supervised_tokens", "total_flops")
    return asdict(plan) | {name: getattr(plan, name) for name in means} | {"reported": comparison}


def _print_modules(console: "Console", plan: "Plan") -> None:
    rows = [[count.module, f"{count.total:,}", f"{count.trainable:,}"] for count in plan.modules]
    total, trained = (sum(getattr(count, name) for count in plan.modules) for name in ("total", "trainable"))
    columns = [Column("module", words=True), Column("parameters"), Column("trained")]
    print_table(console, "Trained modules", columns, [*rows, ["all", f"{total:,}", f"{trained:,}"]])


def _print_data(console: "Console", plan: "Plan") -> None:
    columns = [
        Column("data", words=True),
        Column("samples"),
        Column("visual tokens"),
        Column("text tokens", rank=2),
        Column("supervised", rank=1),
        Column("lengths", words=True, rank=3),
    ]
    rows = []
    for source in plan.data:
        tokens = (source.visual_tokens, source.text_tokens, source.supervised_tokens)
        known = "measured" if source.is_measured else "estimated"
        rows.append([source.name, f"{source.samples:,}", *(f"{value:.0f}" for value in tokens), known])
    print_table(console, "Data", columns, rows)


def _samples(recipe: "Recipe", plan: "Plan") -> list[str]:
    batch = f"{plan.per_device_batch_size} per device x {plan.accumulation_steps} accumulation steps"
    lines = [f"{plan.samples:,} samples in {plan.steps:,} steps ({batch}, {plan.devices} devices)"]
    rest = plan.samples - plan.steps * recipe.global_batch_size
    if rest:
        lines.append(f"the last {rest} samples do not fill a global batch and are not used")
    per_sample = plan.visual_tokens + plan.text_tokens
    lines.append(
        f"tokens per sample: {plan.visual_tokens:.1f} visual + {plan.text_tokens:.1f} text ("
        f"{plan.supervised_tokens:.1f} supervised); about {per_sample * plan.samples / 1e6:,.1f} M in total"
    )
    if plan.is_outlined:
        lines.append("the starting checkpoint is missing: its architecture is taken from the recipe")
    return lines


def _flops(plan: "Plan") -> list[str]:
    forward, backward, recomputed = (
        sum(getattr(part, name) for part in plan.flops) for name in ("forward", "backward", "recomputed")
    )
    total = plan.total_flops
    vision = sum(part.total for part in plan.flops if part.part.startswith("vision_tower"))
    seconds = total / (plan.devices * FULL_RATE_TFLOPS * 1e12)
    return [
        f"FLOPs: {total:.3g} (forward {forward:.3g}, backward {backward:.3g}, recomputed {recomputed:.3g}); "
        f"{vision / total:.0%} in the encoder",
        f"time on {plan.devices} A100 or A800 ({FULL_RATE_TFLOPS:.0f} TFLOP/s each): {_time(seconds)} at full rate, "
        f"{_time(seconds / 0.4)} at 40 % of it",
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.2g} h" if seconds >= 600 else duration(seconds)


def _here(seconds: float | None) -> list[str]:
    if seconds is None:
        return []
    return [f"time on this machine, one process: about {duration(seconds)} (from one timed micro-batch)"]


def _memory(recipe: "Recipe", plan: "Plan", device_memory: float | None) -> list[str]:
    lines = []
    chosen = {"ddp": "replicated", "fsdp2": "sharded"}.get(recipe.engine)
    for layout, means in (("replicated", "DDP"), ("sharded", "FSDP2, ZeRO-3")):
        memory = getattr(plan, layout)
        parts = ", ".join(
            f"{name} {getattr(memory, name) / 1e9:.1f}" for name in ("weights", "gradients", "optimizer", "activations")
        )
        here = ", the recipe's engine" * (layout == chosen)
        line = f"memory per device, {layout} ({means}{here}): about {memory.total / 1e9:.1f} GB ({parts})"
        lines.append(line + _fit(plan, layout, device_memory))
    return lines


def _fit(plan: "Plan", layout: str, device_memory: float | None) -> str:
    if device_memory is None:
        return ""
    largest = plan.largest_batches[layout]
    if largest == 0:
        return f"; {device_memory / 1e9:.0f} GB do not hold a single sample"
    if largest >= plan.per_device_batch_size:
        return f"; fits into {device_memory / 1e9:.0f} GB"
    return f"; into {device_memory / 1e9:.0f} GB fits per_device_batch_size={largest}"


def _comparison(chain: "Sequence[tuple[Recipe, Plan]]") -> list[str]:
    """Return lines that compare reported costs with the estimates of the same training stages."""
    from ..train import share_of_full_rate

    lines = []
    for reported in chain[-1][0].reported_costs:
        plans = [plan for recipe, plan in chain if recipe.training_stage in reported.training_stages]
        flops = sum(plan.total_flops for plan in plans)
        hours = flops / (reported.devices * reported.device_tflops * 1e12 * 3600)
        lines.append(
            f"reported: {reported.hours:g} h on {reported.devices} {reported.device} for "
            f"{', '.join(reported.training_stages)} ({reported.source}); estimated for these: {flops:.3g} FLOPs, "
            f"{hours:.1f} h at full rate, so the report corresponds to {share_of_full_rate(plans, reported):.0%} of it"
        )
    return lines
