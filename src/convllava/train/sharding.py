"""FSDP2: weights, gradients and optimizer state sharded over the processes; the same code over gloo and NCCL.

The vision encoder is one unit whatever its size: ranks whose images have different shapes call its layers different
numbers of times, and units inside it would wait for each other forever.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, load, save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ..inference import load_pretrained
from ..model import ConvLlavaForConditionalGeneration
from .engine import Engine
from .recipe import Recipe


class ShardedEngine(Engine):
    """Training in which every process holds a share of weights, gradients and optimizer state.

    Checkpoints hold the complete weights and, process by process, the optimizer; any number of processes can resume.
    """

    optimizer_state = "optimizer"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if self.num_processes == 1:
            raise ValueError("engine fsdp2 divides the model among several processes: start them with torchrun")

    def place(self, module: nn.Module) -> None:
        """Shard a model over the processes, in place.

        Args:
            module: The model, with weights on process 0, and on the meta device elsewhere.
        """
        if not isinstance(module, ConvLlavaForConditionalGeneration):
            raise ValueError(f"engine fsdp2 trains the model itself, not {type(module).__name__}")
        shard(module, self.device, self.recipe.precision)

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return both as they are: the sharded model reduces its gradients itself."""
        return module, optimizer

    @contextmanager
    def gradient_sync(self, module: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Keep the gradients of a micro-batch on this process unless it is the last of its step."""
        if not isinstance(module, FSDPModule):
            raise TypeError("the model is not sharded yet: call place first")
        module.set_requires_gradient_sync(is_last)
        yield
        module.set_requires_gradient_sync(True)

    def clip_gradients(self, module: nn.Module, max_norm: float) -> Tensor | None:
        """Clip gradients to a norm over all processes and return the norm before."""
        norm = super().clip_gradients(module, max_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def save_weights(self, module: nn.Module, prepared: nn.Module, folder: Path) -> None:
        """Gather the weights on the first process and save them."""
        state = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if self.is_main:
            module.save_pretrained(str(folder), state_dict=state)  # type: ignore[operator]

    def load_weights(self, module: nn.Module, folder: Path) -> None:
        """Load the complete weights of a checkpoint, which only the first process reads, into the shards."""
        state = load_pretrained(folder, dtype=torch.float32, device="cpu")[0].state_dict() if self.is_main else {}
        _scatter(module, state)

    def save_optimizer(self, prepared: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Save the optimizer's state, each process its share."""
        state = get_optimizer_state_dict(prepared, optimizer, options=_FLAT)
        save({"optimizer": state}, storage_writer=FileSystemWriter(folder / self.optimizer_state))

    def load_optimizer(self, prepared: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Load the optimizer's state that any number of processes have saved."""
        state = get_optimizer_state_dict(prepared, optimizer, options=_FLAT)
        load({"optimizer": state}, storage_reader=FileSystemReader(folder / self.optimizer_state))
        set_optimizer_state_dict(prepared, optimizer, state, options=_FLAT)

    @property
    def can_read_back(self) -> bool:
        """Whether the model computes what the saved one does: in bfloat16 it gathers rounded float32 weights."""
        return not self.computes_in_bfloat16


_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def shard(model: ConvLlavaForConditionalGeneration, device: torch.device, precision: str) -> None:
    """Shard a model in place: the encoder, the projector, each layer of the language model, and the rest are units.

    Args:
        model: The same on every process; only the first needs weights, the others may have the meta device's.
        device: Device of the shards.
        precision: "bfloat16" gathers the weights in bfloat16; the shards that the optimizer updates stay float32.
    """
    options: dict[str, Any] = {"mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),))}
    if precision == "bfloat16":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    state = model.state_dict() if torch.distributed.get_rank() == 0 else {}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # not all of them are in the state
    inner = model.model
    for unit in (inner.vision_tower, inner.multi_modal_projector, *inner.language_model.layers, model):
        fully_shard(unit, **options)
    model.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    _scatter(model, state)


def _scatter(model: nn.Module, state: dict[str, Any]) -> None:
    """Give every process its share of complete tensors that only the first one holds."""
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
