"""Cost of one image, or of a data set, under several sizing policies."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..model import ConvLlavaConfig
from .budget import context_of, tokens_in_context, tokens_in_time
from .calibration import Calibration
from .model_cost import ModelCost, model_cost
from .policies import Policy, SizeChoice, choose_size, tokens_of

Size = tuple[int, int]

PICKED = "picked"


@dataclass(frozen=True)
class PolicyCost:
    """Cost of one image under one policy.

    Attributes:
        policy: Name of the policy.
        shape: (height, width) that the image is resized to; None if the policy cannot be used.
        cost: Counts of tokens, FLOPs and memory; None if the policy cannot be used.
        seconds: Estimated time to the first token; None without a calibration.
        note: Reason why the policy cannot be used; empty if it can.
    """

    policy: str
    shape: Size | None
    cost: ModelCost | None
    seconds: float | None
    note: str = ""


@dataclass(frozen=True)
class PolicyTotal:
    """Cost of a data set under one policy."""

    policy: str
    images: int
    visual_tokens: int
    flops: int
    seconds: float | None
    max_memory_bytes: int
    not_usable: int


@dataclass(frozen=True)
class Budget:
    """Limits on an image; None is no limit."""

    max_visual_tokens: int | None = None
    max_seconds: float | None = None


class Comparison:
    """Counts and estimated times of a model under several policies.

    Args:
        config: Configuration of the model.
        policies: Policies to compare.
        text_tokens: Tokens of prompt format and question.
        new_tokens: Tokens of the answer.
        dtype: Precision of weights, activations and KV cache.
        calibration: Calibration of this model on this device; None leaves out times.
        budget: Limits that the picked size has to keep.

    Raises:
        ValueError: The time is limited and there is no calibration.
    """

    def __init__(
        self,
        config: ConvLlavaConfig,
        policies: Sequence[Policy],
        *,
        text_tokens: int,
        new_tokens: int,
        dtype: str,
        calibration: Calibration | None = None,
        budget: Budget = Budget(),
    ) -> None:
        if budget.max_seconds is not None and calibration is None:
            raise ValueError("a limit in milliseconds needs a calibration of this model on this device")
        self.config = config
        self.policies = policies
        self.calibration = calibration
        self._text_tokens = text_tokens
        self._new_tokens = new_tokens
        self._budget = budget
        self._count: Callable[[Size], ModelCost] = lru_cache(maxsize=4096)(
            lambda shape: model_cost(config, *shape, text_tokens=text_tokens, new_tokens=new_tokens, dtype=dtype)
        )

    def costs(self, size: Size) -> list[PolicyCost]:
        """Return the cost of an image of (height, width) under every policy."""
        return [self._cost(policy.name, size, policy) for policy in self.policies]

    def pick(self, size: Size) -> tuple[PolicyCost, SizeChoice]:
        """Return the chosen size of an image of (height, width) within the budget and the context, and its cost."""
        choice = choose_size([size], self.config, token_limit=self._max_tokens(size))
        return self._cost(PICKED, size, Policy(PICKED, choice.options.given())), choice

    def totals(self, sizes: Iterable[Size]) -> list[PolicyTotal]:
        """Return the total of every policy over images of (height, width); last, of picking a size for each image."""
        sizes = list(sizes)
        by_image = [self.costs(size) for size in sizes]
        by_policy = [[costs[index] for costs in by_image] for index in range(len(self.policies))]
        return [_total(costs) for costs in [*by_policy, [self.pick(size)[0] for size in sizes]]]

    def _max_tokens(self, size: Size) -> int:
        limits = [tokens_in_context(self.config, text_tokens=self._text_tokens, reserved=self._new_tokens)]
        if self._budget.max_visual_tokens is not None:
            limits.append(self._budget.max_visual_tokens)
        if self._budget.max_seconds is not None and self.calibration is not None:  # checked in __init__
            limits.append(
                tokens_in_time(
                    self.calibration,
                    self._budget.max_seconds,
                    source_size=size,
                    stride=self.config.output_stride,
                    text_tokens=self._text_tokens,
                )
            )
        return min(limits)

    def _cost(self, name: str, size: Size, policy: Policy) -> PolicyCost:
        try:
            shape = policy.shape(*size, self.config)
            cost = self._count(shape)
        except ValueError as error:  # too large, or not for this encoder: the others are still compared
            return PolicyCost(name, None, None, None, str(error))
        context, needed = context_of(self.config), cost.prompt_tokens + self._new_tokens
        note = f"{needed} tokens exceed the context of {context}" if needed > context else ""
        return PolicyCost(name, shape, cost, self._seconds(size, shape), note)

    def _seconds(self, size: Size, shape: Size) -> float | None:
        if self.calibration is None:
            return None
        tokens = tokens_of(shape, self.config)
        return self.calibration.first_token_seconds(size, shape, visual_tokens=tokens, text_tokens=self._text_tokens)


def _total(found: Sequence[PolicyCost]) -> PolicyTotal:
    usable = [one for one in found if one.cost is not None and not one.note]
    costs = [one.cost for one in usable if one.cost is not None]
    times = [one.seconds for one in usable if one.seconds is not None]
    return PolicyTotal(
        policy=found[0].policy,
        images=len(costs),
        visual_tokens=sum(cost.visual_tokens for cost in costs),
        flops=sum(cost.first_token.flops for cost in costs),
        seconds=sum(times) if times else None,
        max_memory_bytes=max((cost.memory_bytes for cost in costs), default=0),
        not_usable=len(found) - len(usable),
    )
