"""What is counted, and the formulas of single layers.

All counts are exact integers for one image in one row; sources of error are only what the rules leave out.
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


@dataclass(frozen=True)
class Cost:
    """What one part of a model costs.

    Attributes:
        name: Of the part, as printed.
        parameters: Trainable numbers it holds.
        macs: Multiply-accumulates it does.
        activation_elements: Numbers that are alive at its worst moment during inference, inputs included.
    """

    name: str
    parameters: int
    macs: int
    activation_elements: int = 0

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate."""
        return 2 * self.macs


def total(name: str, parts: Iterable[Cost]) -> Cost:
    """Add parts that run one after the other: counts add up, the worst moment is the worst of all."""
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
    """Return the MACs of queries times keys and of probabilities times values; ``width`` is heads x head size."""
    return 2 * queries * keys * width


def bytes_per_element(dtype: str) -> int:
    """Return the size of a number.

    Raises:
        ValueError: Weights of this type are not known here.
    """
    if dtype not in BYTES_PER_ELEMENT:
        raise ValueError(f"dtype {dtype!r} is not known: take {', '.join(BYTES_PER_ELEMENT)}")
    return BYTES_PER_ELEMENT[dtype]
