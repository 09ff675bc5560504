"""Rules of counting, and the formulas of single layers.

Counts are exact integers for one image in one sequence; the only error is what the rules leave out.
"""

from collections.abc import Iterable
from dataclasses import dataclass

COUNTING_RULES = (
    "1 multiply-accumulate (MAC) = 2 FLOPs",
    "counted: convolutions, linear layers, both products of attention",
    "attention as full T x T products: causal kernels that skip the upper half do less",
    "the head is counted for one position of the prompt and for every new token",
    "left out: norms, activations, softmax, rotary embedding, biases, layer scale, residuals, look-ups "
    "(together below 0.5 % of the MACs)",
)

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Size of one element by dtype, in bytes."""


@dataclass(frozen=True)
class Cost:
    """Cost of one part of a model.

    Attributes:
        name: Name of the part, as printed.
        parameters: Number of parameters.
        macs: Number of multiply-accumulates.
        activation_elements: Peak number of activation elements during inference, inputs included.
    """

    name: str
    parameters: int
    macs: int
    activation_elements: int = 0

    @property
    def flops(self) -> int:
        """Number of FLOPs, two per multiply-accumulate."""
        return 2 * self.macs


def total(name: str, parts: Iterable[Cost]) -> Cost:
    """Return the cost of parts that run one after the other: the sum of counts, the maximum of activations."""
    parts = list(parts)
    return Cost(
        name,
        sum(part.parameters for part in parts),
        sum(part.macs for part in parts),
        max((part.activation_elements for part in parts), default=0),
    )


def linear_parameters(inputs: int, outputs: int, *, bias: bool = True) -> int:
    """Return the parameters of a linear layer."""
    return inputs * outputs + outputs * bias


def attention_macs(queries: int, keys: int, width: int) -> int:
    """Return the MACs of attention, for scores and for weighted values; ``width`` is heads x head size."""
    return 2 * queries * keys * width


def bytes_per_element(dtype: str) -> int:
    """Return the bytes of one element of a dtype.

    Raises:
        ValueError: The dtype is unknown.
    """
    if dtype not in BYTES_PER_ELEMENT:
        raise ValueError(f"unknown dtype {dtype!r}: one of {', '.join(BYTES_PER_ELEMENT)}")
    return BYTES_PER_ELEMENT[dtype]
