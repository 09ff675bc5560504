"""Private names borrowed from other libraries, behind one door.

Each function below borrows one private name. Its docstring gives the version that it was checked with, the reason, and
the public alternative that would replace it. ``tests/test_compat.py`` fails with the name of whatever was renamed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator


def set_gradient_sync(accelerator: "Accelerator", is_last: bool) -> None:
    """Tell accelerate whether the next backward pass is the last one before the optimizer step.

    DeepSpeed's engine reads it to know the end of gradient accumulation. Checked with accelerate 1.15.
    ``accelerator.accumulate`` would set it, but divides the loss by the number of micro-batches, and ours is already
    divided by the tokens of the global batch; a public setter is awaited.

    Args:
        accelerator: The accelerator.
        is_last: Whether the optimizer steps after the next backward pass.
    """
    accelerator.gradient_state._set_sync_gradients(is_last)
