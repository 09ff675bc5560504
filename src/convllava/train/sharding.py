"""FSDP2: parameters, gradients and optimizer state divided among the processes; the same code over gloo and NCCL.

The vision encoder is one unit, whatever its size: ranks whose images have different shapes call its layers
different numbers of times, and units inside it would then wait for each other for ever.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, load, save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ..inference import load_pretrained
from ..model import ConvLlavaForConditionalGeneration

OPTIMIZER_FOLDER = "optimizer"


def shard(model: ConvLlavaForConditionalGeneration, precision: str) -> None:
    """Divide a model among all processes, in place: encoder, projector, each layer of the language model, the rest.

    Args:
        model: The same on every process, but only the first needs to hold its weights.
        precision: bfloat16 gathers the weights in bfloat16; the shards that the optimizer updates stay float32.

    Raises:
        ValueError: When transformers is too old to train such a model.
    """
    if not hasattr(model, "is_distributed_loading_by_transformers"):
        raise ValueError("engine fsdp2 needs a newer transformers: pip install -U transformers")
    from transformers.distributed import DistributedConfig

    processes = torch.distributed.get_world_size()
    options: dict[str, Any] = {"mesh": init_device_mesh(_device_type(), (processes,))}
    if precision == "bfloat16":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    state = model.state_dict() if torch.distributed.get_rank() == 0 else {}
    parts = model.model
    for unit in (parts.vision_tower, parts.multi_modal_projector, *parts.language_model.layers, model):
        fully_shard(unit, **options)
    model._apply(lambda tensor: torch.empty_like(tensor, device=_device_type()) if tensor.is_meta else tensor)
    _hand_out(model, state)
    # what transformers sets itself on a model that it has divided: Trainer then leaves it alone and saves it whole
    model.config.distributed_config = DistributedConfig(fsdp_size=processes)
    model._is_distributed_loading_by_transformers = True
    model._is_fsdp_managed_module = True
    model._fsdp_size, model._tp_size = processes, 1


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Fill a divided model from a whole checkpoint, which only the first process reads."""
    state = {}
    if torch.distributed.get_rank() == 0:
        state = load_pretrained(checkpoint, dtype=torch.float32, device="cpu")[0].state_dict()
    _hand_out(model, state)


def _hand_out(model: nn.Module, state: dict[str, Any]) -> None:
    """Give every process its share of whole tensors that only the first holds."""
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))


def save_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Save the optimizer, each process its part; any number of processes can read it."""
    state = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
    save({"optimizer": state}, storage_writer=FileSystemWriter(checkpoint / OPTIMIZER_FOLDER))


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Read back what ``save_optimizer`` wrote."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    state = get_optimizer_state_dict(model, optimizer, options=options)
    load({"optimizer": state}, storage_reader=FileSystemReader(checkpoint / OPTIMIZER_FOLDER))
    set_optimizer_state_dict(model, optimizer, state, options=options)


def whole(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor that may be divided among the processes as a plain one."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _device_type() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
