"""Output of ``convllava cost``: tables, or one JSON object."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options as opt
from .tables import Column, print_table

if TYPE_CHECKING:
    from ..analysis import Calibration, Cost, ModelCost, SizeChoice
    from ..analysis.compare import PolicyCost, PolicyTotal
    from ..analysis.systems import Claim, System
    from ..model import ConvLlavaConfig

_WORDS = frozenset(
    ["system", "vision encoder", "statement", "where", "policy", "part", "JPEG", "complexity", "shapes", ""]
)
"""Headers of columns with words, which are aligned to the left and may wrap."""

_RANKS = {"vision encoder": 9, "where": 8, "activations": 7, "MACs": 6, "mean": 5, "paper": 4, "parameters": 3, "": 2}
"""Columns that are left out of a narrow terminal, the highest first."""

_WIDTH_OF_FILES = 140
"""Characters per line in a file or pipe."""


class Printer:
    """Prints results as tables, or collects them and prints one JSON object at the end.

    Args:
        as_json: Whether to print JSON instead of tables.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._data: dict[str, Any] = {}
        self._console = opt.console(quiet=as_json)
        if not self._console.is_terminal:
            self._console.width = max(self._console.width, _WIDTH_OF_FILES)

    def finish(self) -> None:
        """Print the JSON object, if JSON was asked for."""
        if self._as_json:
            opt.say(json.dumps(self._data))

    def progress(self, text: str) -> None:
        """Print a line of progress on standard error."""
        opt.remark(text)

    def warning(self, text: str) -> None:
        """Print a warning on standard error, and add it to the JSON object."""
        self._data.setdefault("warnings", []).append(text)
        opt.remark(f"warning: {text}")

    def written(self, files: Iterable[Path]) -> None:
        """Print the names of files that were written."""
        self._data.setdefault("files", []).extend(map(str, files))
        for path in files:
            self._console.print(f"wrote {path}")

    def table_1(self, systems: "Sequence[System]") -> list[dict[str, Any]]:
        """Print the published systems and return them as records."""
        rows = [system_record(system) for system in systems]
        self._data["table1"] = rows
        cells = [
            [
                row["system"],
                str(row["resolution"]),
                f"{row['visual_tokens']}",
                f"{row['paper_tokens']}",
                count(row["vision_parameters"]),
                flops(row["vision_flops"]),
                flops(row["language_model_flops"]),
                flops(row["total_flops"]),
            ]
            for row in rows
        ]
        head = ["system", "side", "tokens", "paper", "parameters", "vision", "LM", "total"]
        self._table("Table 1 (and Qwen-VL, 768, four stages): FLOPs to the first token, without text", head, cells)
        self._rules()
        cells = [
            [
                row["system"],
                str(row["resolution"]),
                "yes" if row["cropping"] else "",
                "yes" if row["extra_encoder"] else "",
                row["encoder"],
                row["complexity"],
                row["aspect_ratios"],
            ]
            for row in rows
        ]
        head = ["system", "side", "crops", "extra", "vision encoder", "complexity", "shapes"]
        self._table("Table 1: designs", head, cells)
        return rows

    def figure_2(self, rows: list[dict[str, Any]]) -> None:
        """Print the points of Figure 2."""
        self._data["figure2"] = rows
        cells = [
            [str(row["encoder"]), *(f"{row[key]:.2f}" if "tflops" in key else str(row[key]) for key in keys)]
            for row in rows
            for keys in [list(row)[1:]]
        ]
        head = ["vision encoder", "side", "tokens", "vision TFLOPs", "LM TFLOPs", "total TFLOPs"]
        self._table("Figure 2", head, cells)
        self._rules()

    def claims(self, found: "Sequence[Claim]") -> None:
        """Print the paper's statements with the counted values."""
        self._data["claims"] = [asdict(claim) for claim in found]
        cells = [[claim.text, claim.source, claim.paper, claim.counted] for claim in found]
        self._table("Statements of the paper", ["statement", "where", "in the paper", "counted"], cells)

    def model(
        self, name: str, config: "ConvLlavaConfig", counted: "ModelCost", calibration: "Calibration | None"
    ) -> None:
        """Print the cost of every part of one model on one image."""
        self._data |= {"model": name, **cost_record(counted), "parts": [asdict(part) for part in _parts(counted)]}
        first = counted.first_token
        cells = [_part_cells(part, first, counted.dtype) for part in [*_parts(counted), first]]
        title = (
            f"{name} on {counted.width}x{counted.height}: {counted.visual_tokens} visual + {counted.text_tokens} text "
            f"tokens, {counted.new_tokens} new"
        )
        self._table(title, ["part", "parameters", "MACs", "FLOPs", "share", "activations"], cells)
        self._console.print(
            f"memory in {counted.dtype}: weights {size(counted.weight_bytes)} + activations "
            f"{size(counted.activation_bytes)} + KV cache {size(counted.kv_cache_bytes)} = {size(counted.memory_bytes)}"
        )
        seconds = None
        if calibration is not None:
            shape = (counted.height, counted.width)
            seconds = calibration.first_token_seconds(
                shape, shape, visual_tokens=counted.visual_tokens, text_tokens=counted.text_tokens
            )
            self._console.print(f"first token after about {milliseconds(seconds)} (from a JPEG of the same size)")
        self._data["first_token_seconds"] = seconds
        self._calibration_line(name, calibration)
        self._rules()

    def head(
        self, model: str, config: "ConvLlavaConfig", question: Any, dtype: str, calibration: "Calibration | None"
    ) -> None:
        """Print the model and the lengths that the following costs are for."""
        from ..analysis.policies import describe

        self._data |= {"model": model, **asdict(question), "dtype": dtype, "images": []}
        self._console.print(
            f"{model} ({describe(config)}; {dtype}), {question.text_tokens} text tokens, {question.new_tokens} new"
        )
        self._calibration_line(model, calibration)

    def image(
        self,
        name: str,
        shape: tuple[int, int],
        costs: "Sequence[PolicyCost]",
        picked: "PolicyCost",
        choice: "SizeChoice",
    ) -> None:
        """Print the cost of one image of (height, width) under every policy."""
        self._data["images"].append(
            {
                "name": name,
                "height": shape[0],
                "width": shape[1],
                "policies": [policy_record(one) for one in costs],
                "picked": policy_record(picked) | {"options": choice.options.given(), "reason": choice.reason},
            }
        )
        cells = [_policy_cells(one) for one in [*costs, picked]]
        head = ["policy", "shown", "tokens", "FLOPs", "memory", "first token", ""]
        self._table(f"{name}, {shape[1]}x{shape[0]}", head, cells)
        self._console.print(f"picked because: {choice.reason}\n", soft_wrap=True)

    def totals(self, found: "Sequence[PolicyTotal]") -> None:
        """Print the cost of all images under every policy."""
        self._data["totals"] = [asdict(total) for total in found]
        cells = [
            [
                total.policy,
                f"{total.images:,}",
                f"{total.visual_tokens:,}",
                f"{total.visual_tokens / max(total.images, 1):.1f}",
                flops(total.flops),
                size(total.max_memory_bytes),
                "" if total.seconds is None else f"{total.seconds:.1f} s",
                f"{total.not_usable:,}" if total.not_usable else "",
            ]
            for total in found
        ]
        head = ["policy", "images", "tokens", "mean", "FLOPs", "peak memory", "first tokens", "do not fit"]
        self._table("all images", head, cells)

    def calibration(self, result: "Calibration", path: Path) -> None:
        """Print the errors of the fitted times."""
        self._data |= {"calibration": asdict(result), "path": str(path), "median_error": result.median_error}
        cells = [
            [
                f"{case.source_size[1]}x{case.source_size[0]}",
                f"{case.shown_size[1]}x{case.shown_size[0]}",
                milliseconds(case.measured_seconds),
                milliseconds(case.estimated_seconds),
                f"{case.error:+.0%}",
            ]
            for case in result.held_out
        ]
        title = f"{result.model} on {result.device}, {result.dtype}, {result.threads} threads: held-out images"
        self._table(title, ["JPEG", "shown", "measured", "estimated", "error"], cells)
        self._console.print(
            f"relative error: median {result.median_error:.0%}, worst {result.worst_error:.0%}; saved to {path}",
            soft_wrap=True,
        )

    def _calibration_line(self, model: str, calibration: "Calibration | None") -> None:
        if calibration is None:
            self._console.print(f"times: unknown; run 'convllava cost --calibrate --model {model}' once on this device")
            return
        self._console.print(
            f"times: calibrated {calibration.date} on {calibration.device}, {calibration.dtype}, {calibration.threads} "
            f"threads; error on held-out images {calibration.median_error:.0%} (worst {calibration.worst_error:.0%})"
        )

    def _rules(self) -> None:
        from ..analysis import COUNTING_RULES

        self._data["counting_rules"] = list(COUNTING_RULES)
        self._console.print("counting rules: " + "; ".join(COUNTING_RULES))

    def _table(self, title: str, head: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        columns = [Column(name, words=name in _WORDS, rank=_RANKS.get(name, 0)) for name in head]
        print_table(self._console, title, columns, cells)


def _parts(counted: "ModelCost") -> "list[Cost]":
    from dataclasses import replace

    vision = [replace(part, name=f"vision: {part.name}") for part in counted.vision]
    language = [replace(part, name=f"language: {part.name}") for part in counted.language]
    later = [counted.decoding] if counted.new_tokens > 1 else []
    return [*vision, counted.projector, *language, *later]


def _part_cells(part: "Cost", whole: "Cost", dtype: str) -> list[str]:
    from ..analysis.counting import bytes_per_element

    share = part.macs / whole.macs
    return [
        part.name,
        count(part.parameters),
        count(part.macs),
        flops(part.flops),
        f"{share:.1%}",
        size(part.activation_elements * bytes_per_element(dtype)),
    ]


def _policy_cells(found: "PolicyCost") -> list[str]:
    if found.shape is None or found.cost is None:
        return [found.policy, "", "", "", "", "", found.note]
    cost = found.cost
    time = "" if found.seconds is None else milliseconds(found.seconds)
    shown = f"{found.shape[1]}x{found.shape[0]}"
    tokens, spent = str(cost.visual_tokens), flops(cost.first_token.flops)
    return [found.policy, shown, tokens, spent, size(cost.memory_bytes), time, found.note]


def system_record(system: "System") -> dict[str, Any]:
    """Return a published system as a record for JSON and CSV."""
    return {
        "system": system.name,
        "resolution": system.resolution,
        "visual_tokens": system.visual_tokens,
        "paper_tokens": system.paper_tokens,
        "vision_parameters": system.vision.parameters,
        "vision_flops": system.vision.flops,
        "language_model_flops": system.prefill().flops,
        "total_flops": system.flops(),
        **asdict(system.design),
    }


def cost_record(counted: "ModelCost") -> dict[str, Any]:
    """Return a count as a record for JSON."""
    return {
        "height": counted.height,
        "width": counted.width,
        "visual_tokens": counted.visual_tokens,
        "text_tokens": counted.text_tokens,
        "new_tokens": counted.new_tokens,
        "dtype": counted.dtype,
        "parameters": counted.full_answer.parameters,
        "first_token_flops": counted.first_token.flops,
        "flops": counted.full_answer.flops,
        "weight_bytes": counted.weight_bytes,
        "activation_bytes": counted.activation_bytes,
        "kv_cache_bytes": counted.kv_cache_bytes,
        "memory_bytes": counted.memory_bytes,
    }


def policy_record(found: "PolicyCost") -> dict[str, Any]:
    """Return the cost under one policy as a record for JSON."""
    counts = {} if found.cost is None else cost_record(found.cost)
    return {"policy": found.policy, **counts, "first_token_seconds": found.seconds, "note": found.note}


def count(number: float) -> str:
    """Format a large number with a suffix: 669.2 M."""
    return _scaled(number, 1000, ("", " K", " M", " G", " T", " P"))


def flops(number: float) -> str:
    """Format FLOPs: 11.44 TFLOPs."""
    return _scaled(number, 1000, (" FLOPs", " KFLOPs", " MFLOPs", " GFLOPs", " TFLOPs", " PFLOPs", " EFLOPs"), digits=2)


def size(number: float) -> str:
    """Format bytes in binary units: 1.3 GiB."""
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(number: float, step: int, suffixes: Sequence[str], digits: int = 1) -> str:
    power = 0
    while number >= step and power < len(suffixes) - 1:
        number, power = number / step, power + 1
    return f"{number:.{digits if power else 0}f}{suffixes[power]}"


def milliseconds(seconds: float) -> str:
    """Format a time in milliseconds, with a decimal below 100 ms."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"
