"""The plan of a recipe: parameters, samples, steps, tokens, FLOPs and memory, worked out without weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import CLIPVisionConfig

from ...model import ConvLlavaConfig
from ..callbacks import installed_trackers
from ..data_loading import divmod_steps, split_batch
from ..engine import load_deepspeed_config
from ..model_setup import resolve_model
from ..recipe import Recipe
from ..recipe_options import ReportedCost
from ..stages import describe_optimization, describe_trained
from .data import PlannedData, describe_validation, plan_data
from .flops import GradientFlow, PartFlops, gradient_flow, sample_flops
from .memory import Memory, MemoryEstimate, Sizes, activation_bytes
from .parameters import ModuleCount, PlannedParameter, count_modules, largest_unit, outlined_module, planned_parameters


@dataclass(frozen=True)
class Plan:
    """A training run before it starts.

    Attributes:
        samples: Samples drawn from the data; the last incomplete global batch among them is left out.
        steps: Optimizer steps.
        devices: Devices that share the global batch.
        per_device_batch_size: Samples per micro-batch.
        accumulation_steps: Micro-batches per step and device.
        modules: Parameters, module by module.
        data: Number and length of the samples, by source or for all sources together.
        flops: FLOPs of the run, part by part.
        replicated: Memory of one device if each holds everything, at this batch size and mean sample length.
        sharded: Memory of one device if weights, gradients and optimizer are sharded.
        largest_batches: Largest micro-batch that fits a given memory, by "replicated" and "sharded"; 0 if not even one
            sample fits.
        is_outlined: Whether the starting checkpoint is missing, so that the recipe's ``model`` stands in for it.
        protocol: Results of the protocol's checks, in sentences.
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
        """Mean number of visual tokens of a sample."""
        return self._mean([data.visual_tokens for data in self.data])

    @property
    def text_tokens(self) -> float:
        """Mean number of text tokens of a sample."""
        return self._mean([data.text_tokens for data in self.data])

    @property
    def supervised_tokens(self) -> float:
        """Mean number of supervised tokens of a sample."""
        return self._mean([data.supervised_tokens for data in self.data])

    @property
    def total_flops(self) -> float:
        """FLOPs of the run."""
        return sum(part.total for part in self.flops)

    def _mean(self, values: Sequence[float]) -> float:
        return sum(value * data.samples for value, data in zip(values, self.data, strict=True)) / self.samples


def plan(recipe: Recipe, processes: int = 1, device_memory: float | None = None) -> Plan:
    """Work out a recipe without training it, and check that it does what its training stage says.

    Args:
        recipe: The recipe; neither its checkpoint nor data sets known by name need to be on this machine.
        processes: Number of devices, one process each.
        device_memory: Memory of one device in bytes, to find the largest micro-batch that it holds.

    Raises:
        ValueError: The training would stop before its first step.
    """
    per_device, accumulation = split_batch(recipe, processes)
    installed_trackers(recipe.trackers)
    if recipe.engine == "deepspeed":
        load_deepspeed_config(recipe)
    resolved = resolve_model(recipe, fetch=False)
    model = resolved.outline()
    protocol = [describe_trained(recipe, model)]
    data = plan_data(recipe, resolved.config, resolved.processor)
    samples = sum(source.samples for source in data)
    steps, _ = divmod_steps(recipe, samples)
    module = outlined_module(recipe, model, resolved.processor)
    if module is not None:
        protocol += describe_optimization(recipe, module, (processes, per_device, accumulation), steps)
    protocol += describe_validation(recipe, steps, samples)
    parameters = planned_parameters(model, module, recipe)
    modules = count_modules(parameters, is_clip=isinstance(resolved.config.vision_config, CLIPVisionConfig))
    flow = gradient_flow({count.module: count.trainable / count.total for count in modules})
    memory = _memory(recipe, resolved.config, parameters, largest_unit(model), flow, data, processes)
    return Plan(
        samples=samples,
        steps=steps,
        devices=processes,
        per_device_batch_size=per_device,
        accumulation_steps=accumulation,
        modules=modules,
        data=data,
        flops=_flops(recipe, resolved.config, flow, data),
        replicated=memory.at("replicated", per_device),
        sharded=memory.at("sharded", per_device),
        largest_batches=memory.largest_batches(recipe.global_batch_size // processes, device_memory),
        is_outlined=resolved.processor is None,
        protocol=protocol,
    )


def share_of_full_rate(plans: Sequence[Plan], reported: ReportedCost) -> float:
    """Return the share of the devices' peak rate that the reported time of these runs implies."""
    available = reported.hours * 3600 * reported.devices * reported.device_tflops * 1e12
    return sum(one.total_flops for one in plans) / available


def _flops(
    recipe: Recipe, config: ConvLlavaConfig, flow: dict[str, GradientFlow], data: Sequence[PlannedData]
) -> list[PartFlops]:
    """Add up the run's FLOPs, each source with its own sample length."""
    totals: dict[str, PartFlops] = {}
    for source in data:
        for part in sample_flops(
            config,
            flow,
            visual_tokens=source.visual_tokens,
            tokens=source.tokens,
            checkpointing=recipe.activation_checkpointing,
            language=recipe.trains_language_model,
        ):
            more, before = part.times(source.samples), totals.get(part.part)
            totals[part.part] = more if before is None else before.plus(more)
    return list(totals.values())


def _memory(
    recipe: Recipe,
    config: ConvLlavaConfig,
    parameters: Sequence[PlannedParameter],
    largest: int,
    flow: dict[str, GradientFlow],
    data: Sequence[PlannedData],
    devices: int,
) -> MemoryEstimate:
    """Estimate the memory of one device for samples of mean length."""
    samples = sum(source.samples for source in data)
    bytes_per_number = 2 if recipe.precision == "bfloat16" else 4
    sizes = Sizes(
        weight_bytes=sum(parameter.bytes for parameter in parameters),
        trained=sum(parameter.size for parameter in parameters if parameter.is_trained),
        largest_unit=largest,
        bytes_per_number=bytes_per_number,
        devices=devices,
    )
    per_sample = activation_bytes(
        config,
        flow,
        visual_tokens=sum(source.visual_tokens * source.samples for source in data) / samples,
        tokens=sum(source.tokens * source.samples for source in data) / samples,
        checkpointing=recipe.activation_checkpointing,
        bytes_per_number=bytes_per_number,
        language=recipe.trains_language_model,
    )
    return MemoryEstimate(sizes, per_sample)
