"""Private names borrowed from other libraries, behind one door.

Each function below borrows one private name. Its docstring gives the version that it was checked with, the reason, and
the public alternative that would replace it. ``tests/test_compat.py`` fails with the name of whatever was renamed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def initialize_weights(model: "PreTrainedModel", module: "nn.Module") -> None:
    """Give the parameters of one module of a model the values that the model's own initialization gives them.

    Borrows ``PreTrainedModel._init_weights`` and the mark ``_is_hf_initialized`` of transformers 5.23: parameters that
    were materialized by ``to_empty`` carry the mark, and without its removal they would keep their garbage. The public
    alternative awaited is an initialization of a single module; ``init_weights()`` covers whole models only.
    """
    for parameter in module.parameters():
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]
    model._init_weights(module)
