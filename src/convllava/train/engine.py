"""Engines: how several processes share a model, behind the few operations that the training loop needs.

``ddp``: every process holds the whole model and gradients are averaged. ``fsdp2``: every process holds a share
(``sharding``). ``deepspeed``: as its configuration file says. One process alone uses ``ddp`` without communication.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedDataParallelKwargs, InitProcessGroupKwargs
from safetensors.torch import load_file
from torch import Tensor, nn

from ..compat import set_gradient_sync
from ..model import ConvLlavaForConditionalGeneration
from ..support import read_json
from .data_loading import process_count, split_batch
from .lora import load_adapter_weights
from .recipe import Recipe

OPTIMIZER_FILE = "optimizer.pt"

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Maximum wait for another process: the first saves checkpoints while the others wait."""


class Engine:
    """Replicated training: every process holds the whole model, and DistributedDataParallel averages gradients.

    Attributes:
        optimizer_state: Name of the optimizer's file or folder in a checkpoint.
    """

    optimizer_state = OPTIMIZER_FILE

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.accelerator = self._accelerator()
        self.computes_in_bfloat16 = recipe.precision == "bfloat16"

    def _accelerator(self, **options: Any) -> Accelerator:
        on_cpu = not torch.cuda.is_available()
        # a process without images encodes a blank image, so every parameter has a gradient; one process alone does not
        ddp = DistributedDataParallelKwargs(find_unused_parameters=process_count() == 1)
        handlers = [ddp, InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT)]
        return Accelerator(cpu=on_cpu, kwargs_handlers=handlers, **{"mixed_precision": "no", **options})

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        return self.accelerator.device

    @property
    def num_processes(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        """Number of this process, counted from 0."""
        return self.accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.accelerator.is_main_process

    def wait_for_all(self) -> None:
        """Wait until every process has arrived here."""
        self.accelerator.wait_for_everyone()

    def place(self, module: nn.Module) -> None:
        """Move a module to the device, before the optimizer is made; quantized weights are there already."""
        if self.recipe.lora is None or self.recipe.lora.quantize is None:
            module.to(self.device)

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return the module and the optimizer as the training step calls them."""
        prepared: tuple[nn.Module, torch.optim.Optimizer] = self.accelerator.prepare(module, optimizer)
        return prepared

    def to_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of a batch on the device."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of the forward pass: bfloat16 computation over float32 weights, or float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.computes_in_bfloat16)

    def gradient_sync(self, module: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
        """Return the context of a micro-batch: gradients are reduced over processes with the last one of a step."""
        return nullcontext() if is_last else self.accelerator.no_sync(module)

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""
        self.accelerator.backward(loss)

    def clip_gradients(self, module: nn.Module, max_norm: float) -> Tensor | None:
        """Clip gradients to a norm over all processes and return the norm before, if it is known."""
        norm: Tensor = self.accelerator.clip_grad_norm_(module.parameters(), max_norm)
        return norm

    def total(self, values: Sequence[float]) -> list[float]:
        """Return numbers added up over the processes."""
        if self.num_processes == 1:
            return list(values)
        summed: Tensor = self.accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), reduction="sum"
        )
        return summed.tolist()

    def all_values(self, values: Sequence[int]) -> list[int]:
        """Return the numbers of all processes in one list."""
        gathered: Tensor = self.accelerator.gather(torch.tensor(values, device=self.device))
        return gathered.tolist()

    def gather_lists(self, values: list[str]) -> list[list[str]]:
        """Return the list of each process, in the order of their ranks."""
        if self.num_processes == 1:
            return [values]
        gathered: list[list[str]] = [[] for _ in range(self.num_processes)]
        torch.distributed.all_gather_object(gathered, values)
        return gathered

    def mean(self, value: Tensor) -> float:
        """Return a scalar () averaged over the processes."""
        gathered: Tensor = self.accelerator.gather(value)
        return gathered.mean().item()

    def save_weights(self, module: nn.Module, prepared: nn.Module, folder: Path) -> None:
        """Save the trained module; every process calls it, and the first writes.

        Args:
            module: The module itself.
            prepared: The module as :meth:`prepare` returned it.
            folder: Destination.
        """
        if self.is_main:
            module.save_pretrained(str(folder))  # type: ignore[operator]

    def load_weights(self, module: nn.Module, folder: Path) -> None:
        """Load the weights of a checkpoint into a placed module, before :meth:`prepare`.

        Raises:
            RuntimeError: The checkpoint lacks weights, or has those of another model.
        """
        if self.recipe.lora is not None:
            load_adapter_weights(module, folder)
            return
        loaded: set[str] = set()
        for file in sorted(folder.glob("*.safetensors")):  # one shard at a time: the model is in memory already
            tensors = load_file(file)
            module.load_state_dict(tensors, strict=False)
            loaded |= tensors.keys()
        missing = {name for name, _ in module.named_parameters()} - loaded  # names tied weights once
        if missing or not loaded <= module.state_dict().keys():
            raise RuntimeError(f"{len(missing)} of its weights are missing")

    def save_optimizer(self, prepared: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Save the optimizer's state; every process calls it."""
        if self.is_main:
            torch.save(optimizer.state_dict(), folder / self.optimizer_state)

    def load_optimizer(self, prepared: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Load the optimizer's state of a checkpoint, after :meth:`check_optimizer`."""
        optimizer.load_state_dict(torch.load(folder / self.optimizer_state, map_location="cpu", weights_only=True))

    def check_optimizer(self, folder: Path) -> None:
        """Check that a checkpoint has this engine's optimizer state; it would start afresh otherwise.

        Raises:
            ValueError: Another engine saved the checkpoint.
        """
        if not (folder / self.optimizer_state).exists():
            raise ValueError(
                f"{folder} has no {self.optimizer_state}: it was saved by another engine than {self.recipe.engine}; "
                "resume it with that one"
            )

    @property
    def can_read_back(self) -> bool:
        """Whether the model in memory computes the logits that the saved one must have."""
        return True


class DeepSpeedEngine(Engine):
    """Training with DeepSpeed, whose configuration file decides what the processes share.

    DeepSpeed clips gradients and updates the weights inside :meth:`backward` of a step's last micro-batch.
    """

    def _accelerator(self, **options: Any) -> Accelerator:
        recipe = self.recipe
        config = load_deepspeed_config(recipe)
        precision = "bf16" if recipe.precision == "bfloat16" else "no"
        return super()._accelerator(mixed_precision=precision, deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Hand module and optimizer to DeepSpeed; bucket sizes set to "auto" follow the language model's width."""
        if not isinstance(module, ConvLlavaForConditionalGeneration):
            raise ValueError(f"engine deepspeed trains the model itself, not {type(module).__name__}")
        width: int = module.config.text_config.hidden_size
        zero = self.accelerator.state.deepspeed_plugin.deepspeed_config.get("zero_optimization", {})
        sizes = {
            "reduce_bucket_size": width * width,
            "stage3_prefetch_bucket_size": int(0.9 * width * width),
            "stage3_param_persistence_threshold": 10 * width,
        }
        zero.update({key: size for key, size in sizes.items() if zero.get(key) == "auto"})
        return super().prepare(module, optimizer)

    def to_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of a batch on the device; images in the dtype of DeepSpeed's weights."""
        dtype = torch.bfloat16 if self.computes_in_bfloat16 else torch.float32
        moved = super().to_device(inputs)
        return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in moved.items()}

    def autocast(self) -> AbstractContextManager[Any]:
        """Return an empty context: DeepSpeed holds the weights in the precision that it computes in."""
        return nullcontext()

    @contextmanager
    def gradient_sync(self, module: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Tell DeepSpeed whether a micro-batch is the last of its step."""
        set_gradient_sync(self.accelerator, is_last)
        with super().gradient_sync(module, is_last=is_last):
            yield

    def backward(self, loss: Tensor) -> None:
        """Compute gradients; the loss is already divided by the tokens of the global batch."""
        self.accelerator.backward(loss, scale_wrt_gas=False)

    def clip_gradients(self, module: nn.Module, max_norm: float) -> Tensor | None:
        """Return the norm that DeepSpeed has clipped, if it tells."""
        norm = self.accelerator.clip_grad_norm_(module.parameters(), max_norm)
        return None if norm is None else torch.as_tensor(float(norm), device=self.device)

    def save_weights(self, module: nn.Module, prepared: nn.Module, folder: Path) -> None:
        """Gather the weights and save them."""
        state = self.accelerator.get_state_dict(prepared)
        if self.is_main:
            module.save_pretrained(str(folder), state_dict=state)  # type: ignore[operator]

    def load_weights(self, module: nn.Module, folder: Path) -> None:
        """Do nothing: DeepSpeed loads weights and optimizer together, after :meth:`prepare`."""

    def save_optimizer(self, prepared: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Save DeepSpeed's shares of weights and optimizer."""
        prepared.save_checkpoint(str(folder))  # type: ignore[operator]

    def load_optimizer(self, prepared: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Load DeepSpeed's shares of weights and optimizer."""
        prepared.load_checkpoint(str(folder))  # type: ignore[operator]

    def check_optimizer(self, folder: Path) -> None:
        """Check that DeepSpeed saved a checkpoint.

        Raises:
            ValueError: Another engine saved it.
        """
        if not any(folder.glob("global_step*")):
            raise ValueError(f"{folder} has no global_step*: it was saved by another engine than deepspeed")

    @property
    def can_read_back(self) -> bool:
        """Whether the model in memory can be compared: not while DeepSpeed owns its weights."""
        return False


def load_deepspeed_config(recipe: Recipe) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a recipe, filled by :func:`deepspeed_config`.

    Raises:
        ValueError: DeepSpeed is not installed, or the configuration cannot be read or used.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError("engine deepspeed needs deepspeed, which is not installed: pip install deepspeed")
    if recipe.deepspeed_config is None:
        raise ValueError("engine deepspeed needs deepspeed_config")
    return deepspeed_config(read_json(recipe.deepspeed_config), recipe)


def deepspeed_config(config: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Fill the values that a DeepSpeed configuration leaves to the recipe ("auto").

    Args:
        config: Content of the configuration file.
        recipe: The recipe.

    Raises:
        ValueError: The configuration sets the optimizer or its schedule, which are the recipe's.
    """
    for key in ("optimizer", "scheduler"):
        if key in config:
            raise ValueError(f"{recipe.deepspeed_config} sets {key}, which the recipe decides: remove it there")
    per_device, accumulation = split_batch(recipe, process_count())
    values: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": per_device,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": recipe.global_batch_size,
        "gradient_clipping": recipe.max_grad_norm,
    }
    filled = {key: values[key] if value == "auto" and key in values else value for key, value in config.items()}
    filled = {**values, **filled}
    if filled.get("bf16", {}).get("enabled") == "auto":
        filled["bf16"] = {**filled["bf16"], "enabled": recipe.precision == "bfloat16"}
    return filled
