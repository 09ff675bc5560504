"""What a recipe would do, told without weights: parameters, samples, steps, tokens, FLOPs and memory."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import CLIPVisionConfig

from ...model import ConvLlavaConfig, ConvLlavaForConditionalGeneration
from ..data_loading import split_batch
from ..lora import add_adapters
from ..model_setup import resolve_model
from ..recipe import Recipe, ReportedCost
from ..stages import LANGUAGE_MODEL, check_protocol
from .data import PROBED_SAMPLES, PlannedData, plan_data
from .flops import Flow, PartFlops, flows, sample_flops
from .memory import Memory, Sizes, activation_bytes, replicated, sharded

__all__ = ["PROBED_SAMPLES", "ModuleCount", "Plan", "plan", "share_of_full_rate"]

BYTES_OF_NF4 = 4.127 / 8
"""4 bits, and a scale of 8 bits for every 64 values with its own scale for every 256 of them (QLoRA, section 3)."""


@dataclass(frozen=True)
class ModuleCount:
    """Parameters of one module."""

    module: str
    total: int
    trainable: int


@dataclass(frozen=True)
class Plan:
    """A training run before it is started.

    Attributes:
        samples: That are drawn; the last incomplete global batch among them is left out.
        steps: Updates.
        devices: That share the global batch.
        per_device_batch_size, accumulation_steps: How they share it.
        modules: Parameters, module by module.
        data: What is drawn, source by source or as a whole.
        flops: Of the whole run, part by part.
        replicated, sharded: Memory of one device at this batch size, rows of mean length.
        largest_batches: For a given memory, the largest batch a device holds at a time, by the same two names; 0
            where not even one sample fits.
        is_outlined: The starting checkpoint is not here: the recipe's word stands in for it.
        protocol: What was checked, in words.
    """

    samples: int
    steps: int
    devices: int
    per_device_batch_size: int
    accumulation_steps: int
    modules: list[ModuleCount]
    data: list[PlannedData]
    flops: list[PartFlops]
    replicated: Memory
    sharded: Memory
    largest_batches: dict[str, int]
    is_outlined: bool
    protocol: list[str]

    @property
    def visual_tokens(self) -> float:
        """Of a sample, mean."""
        return self._mean([data.visual_tokens for data in self.data])

    @property
    def text_tokens(self) -> float:
        """Of a sample, mean."""
        return self._mean([data.text_tokens for data in self.data])

    @property
    def supervised_tokens(self) -> float:
        """Of a sample, mean."""
        return self._mean([data.supervised_tokens for data in self.data])

    @property
    def total_flops(self) -> float:
        """Of the whole run."""
        return sum(part.total for part in self.flops)

    def _mean(self, values: Sequence[float]) -> float:
        return sum(value * data.samples for value, data in zip(values, self.data, strict=True)) / self.samples


def plan(recipe: Recipe, processes: int = 1, device_memory: float | None = None) -> Plan:
    """Work out a recipe without training it, and check that it does what its training stage says.

    Args:
        recipe: What to look at. Neither its checkpoint nor data known by name need be here.
        processes: Devices, one process each.
        device_memory: Bytes of one device, to find the largest batch it holds.

    Raises:
        ValueError: For everything that would also stop the training before its first step.
    """
    per_device, accumulation = split_batch(recipe, processes)
    resolved = resolve_model(recipe, fetch=False)
    model, processor = resolved.outline(), resolved.processor
    protocol = check_protocol(recipe, model, (processes, per_device, accumulation))
    data = plan_data(recipe, model.config, processor)
    weights = _weights(model, recipe)
    modules = _count(weights, isinstance(model.config.vision_config, CLIPVisionConfig))
    flow = flows({count.module: count.trainable / count.total for count in modules})
    memory = _MemoryEstimate(recipe, model, weights, flow, data, processes)
    samples = sum(source.samples for source in data)
    return Plan(
        samples=samples,
        steps=samples // recipe.global_batch_size,
        devices=processes,
        per_device_batch_size=per_device,
        accumulation_steps=accumulation,
        modules=modules,
        data=data,
        flops=_flops(recipe, model.config, flow, data),
        replicated=memory.of("replicated", per_device),
        sharded=memory.of("sharded", per_device),
        largest_batches=memory.largest(recipe.global_batch_size // processes, device_memory),
        is_outlined=processor is None,
        protocol=protocol,
    )


def share_of_full_rate(plans: Sequence[Plan], reported: ReportedCost) -> float:
    """Return how much of the devices' peak rate the reported time means for these runs."""
    available = reported.hours * 3600 * reported.devices * reported.device_tflops * 1e12
    return sum(one.total_flops for one in plans) / available


def _flops(
    recipe: Recipe, config: ConvLlavaConfig, flow: dict[str, Flow], data: Sequence[PlannedData]
) -> list[PartFlops]:
    """Add up the run's FLOPs, each source with its own lengths."""
    totals: dict[str, PartFlops] = {}
    for source in data:
        for part in sample_flops(
            config,
            flow,
            visual_tokens=source.visual_tokens,
            tokens=source.tokens,
            checkpointing=recipe.activation_checkpointing,
            language=recipe.training_stage != "encoder",
        ):
            more, before = part.times(source.samples), totals.get(part.part)
            totals[part.part] = more if before is None else before.plus(more)
    return list(totals.values())


class _MemoryEstimate:
    """Memory of one device at any batch size."""

    def __init__(
        self,
        recipe: Recipe,
        model: ConvLlavaForConditionalGeneration,
        weights: "Sequence[_Weight]",
        flow: dict[str, Flow],
        data: Sequence[PlannedData],
        devices: int,
    ) -> None:
        samples = sum(source.samples for source in data)
        bytes_per_number = 2 if recipe.precision == "bfloat16" else 4
        self.sizes = Sizes(
            weight_bytes=sum(weight.bytes for weight in weights),
            trained=sum(weight.size for weight in weights if weight.is_trained),
            largest_unit=_largest_unit(model),
            bytes_per_number=bytes_per_number,
            devices=devices,
        )
        self.of_a_sample = activation_bytes(
            model.config,
            flow,
            visual_tokens=sum(source.visual_tokens * source.samples for source in data) / samples,
            tokens=sum(source.tokens * source.samples for source in data) / samples,
            checkpointing=recipe.activation_checkpointing,
            bytes_per_number=bytes_per_number,
            language=recipe.training_stage != "encoder",
        )

    def of(self, way: str, batch: int) -> Memory:
        """Return the memory with ``batch`` samples at a time, replicated or sharded."""
        return {"replicated": replicated, "sharded": sharded}[way](self.sizes, batch * self.of_a_sample)

    def largest(self, share: int, device_memory: float | None) -> dict[str, int]:
        """Return the largest divisor of a device's share of the global batch that fits, by way."""
        if device_memory is None:
            return {}
        divisors = [batch for batch in range(1, share + 1) if share % batch == 0]
        return {
            way: max((batch for batch in divisors if self.of(way, batch).total <= device_memory), default=0)
            for way in ("replicated", "sharded")
        }


def _largest_unit(model: ConvLlavaForConditionalGeneration) -> int:
    """Return the parameters of the largest of: the encoder, a layer of the language model, embeddings, head."""
    language = model.model.language_model
    units = [model.model.vision_tower, *language.layers, language.get_input_embeddings(), model.lm_head]
    return max(sum(parameter.numel() for parameter in unit.parameters()) for unit in units)


@dataclass(frozen=True)
class _Weight:
    """A parameter by its name in the model, with its numbers, and the bytes in which they are held."""

    name: str
    size: int
    is_trained: bool
    bytes: float


def _weights(model: ConvLlavaForConditionalGeneration, recipe: Recipe) -> list[_Weight]:
    """List the parameters as they will be trained: with adapters, where the recipe wants them."""
    if recipe.lora is None:
        return [
            _Weight(name, one.numel(), one.requires_grad, 4.0 * one.numel()) for name, one in model.named_parameters()
        ]
    with torch.device("meta"):
        adapted = add_adapters(model, recipe)
    return [_adapted(name, parameter, recipe) for name, parameter in adapted.named_parameters()]


def _adapted(name: str, parameter: torch.nn.Parameter, recipe: Recipe) -> _Weight:
    """Tell how a parameter beside or in an adapter is held: what is trained in float32, the rest as it was loaded."""
    assert recipe.lora is not None
    inner = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", ".")
    is_matrix = inner.startswith(f"{LANGUAGE_MODEL}layers.") and parameter.ndim > 1
    frozen = BYTES_OF_NF4 if recipe.lora.quantize and is_matrix else 2.0 if recipe.precision == "bfloat16" else 4.0
    each = 4.0 if parameter.requires_grad else frozen
    return _Weight(inner, parameter.numel(), parameter.requires_grad, each * parameter.numel())


def _count(weights: Sequence[_Weight], is_clip: bool) -> list[ModuleCount]:
    """Count parameters with adapters: the encoder part by part, the projector, the language model with its head."""
    counts: dict[str, list[int]] = {}
    for weight in weights:
        total_and_trainable = counts.setdefault(_module_of(weight.name, is_clip), [0, 0])
        total_and_trainable[0] += weight.size
        total_and_trainable[1] += weight.size if weight.is_trained else 0
    return [ModuleCount(module, total, trainable) for module, (total, trainable) in counts.items()]


def _module_of(parameter_name: str, is_clip: bool) -> str:
    stage = re.match(r"model\.vision_tower\.encoder\.stages\.(\d+)\.", parameter_name)
    if stage:
        return f"vision_tower stage {int(stage[1]) + 1}"
    if parameter_name.startswith("model.vision_tower.encoder.layers."):
        return "vision_tower layers"
    if parameter_name.startswith("model.vision_tower."):
        return "vision_tower patches" if is_clip else "vision_tower stem"
    if parameter_name.startswith("model.multi_modal_projector."):
        return "multi_modal_projector"
    return "language_model"
