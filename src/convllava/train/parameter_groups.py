"""Optimizer groups: a learning rate for each pattern, no decay for norms, biases and scales."""

import re
from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, learning_rate: float, learning_rates: dict[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trainable parameters for AdamW.

    Args:
        model: Only parameters that require a gradient are taken.
        learning_rate: Peak rate of what no pattern matches.
        learning_rates: {regular expression: peak rate}; the first that matches a parameter's name decides.
        weight_decay: Applied to parameters of two and more dimensions only.

    Raises:
        ValueError: When a pattern matches no trainable parameter.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    unused = set(learning_rates)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pattern = next((pattern for pattern in learning_rates if re.search(pattern, name)), None)
        unused.discard(pattern or "")
        rate = learning_rates[pattern] if pattern is not None else learning_rate
        decay = weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    if unused:
        raise ValueError(f"learning_rates has patterns that match no trainable parameter: {', '.join(sorted(unused))}")
    return list(groups.values())
