"""One image, or a data set of them, under every policy."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..model import ConvLlavaConfig
from .budget import context_of, tokens_in_context, tokens_in_time
from .calibration import Calibration
from .model_cost import ModelCost, model_cost
from .policies import Choice, Policy, choose, tokens_of

Size = tuple[int, int]

PICKED = "picked"


@dataclass(frozen=True)
class Row:
    """What one policy costs one image.

    Attributes:
        policy: Its name.
        shape: (height, width) at which the image is shown; None where the policy refuses it.
        cost: Counts; None likewise.
        seconds: Estimated time to the first token; None without a calibration.
        note: Why it cannot be used, or empty.
    """

    policy: str
    shape: Size | None
    cost: ModelCost | None
    seconds: float | None
    note: str = ""


@dataclass(frozen=True)
class Total:
    """What one policy costs a data set."""

    policy: str
    images: int
    visual_tokens: int
    flops: int
    seconds: float | None
    most_memory_bytes: int
    not_usable: int


@dataclass(frozen=True)
class Budget:
    """Limits an image has to keep; None is no limit."""

    max_visual_tokens: int | None = None
    max_seconds: float | None = None


class Comparison:
    """Counts and times of a model's policies.

    Args:
        config: Of the model.
        policies: To compare.
        text_tokens, new_tokens, dtype: Of the question, the answer and the weights.
        calibration: Of this model on this device, or None.
        budget: That the picked policy keeps.

    Raises:
        ValueError: A time was limited and nobody has calibrated.
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

    def rows(self, size: Size) -> list[Row]:
        """Return every policy's row for an image of (height, width)."""
        return [self._row(policy.name, size, policy) for policy in self.policies]

    def pick(self, size: Size) -> tuple[Row, Choice]:
        """Return what to do with an image within the budget and the context, and why."""
        choice = choose([size], self.config, max_visual_tokens=self._most_tokens(size))
        return self._row(PICKED, size, Policy(PICKED, choice.options)), choice

    def totals(self, sizes: Iterable[Size]) -> list[Total]:
        """Return each policy's total over images, that of picking for each one last."""
        sizes = list(sizes)
        columns = [self.rows(size) for size in sizes]
        by_policy = [[rows[index] for rows in columns] for index in range(len(self.policies))]
        return [_total(rows) for rows in [*by_policy, [self.pick(size)[0] for size in sizes]]]

    def _most_tokens(self, size: Size) -> int:
        limits = [tokens_in_context(self.config, text_tokens=self._text_tokens, reserved=self._new_tokens)]
        if self._budget.max_visual_tokens is not None:
            limits.append(self._budget.max_visual_tokens)
        if self._budget.max_seconds is not None:
            assert self.calibration is not None  # __init__
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

    def _row(self, name: str, size: Size, policy: Policy) -> Row:
        try:
            shape = policy.shape(*size, self.config)
            cost = self._count(shape)
        except ValueError as error:  # too large, or not for this encoder: that is worth a row, not the end
            return Row(name, None, None, None, str(error))
        context, needed = context_of(self.config), cost.prompt_tokens + self._new_tokens
        note = f"{needed} tokens exceed the context of {context}" if needed > context else ""
        return Row(name, shape, cost, self._seconds(size, shape), note)

    def _seconds(self, size: Size, shape: Size) -> float | None:
        if self.calibration is None:
            return None
        tokens = tokens_of(shape, self.config)
        return self.calibration.first_token_seconds(size, shape, visual_tokens=tokens, text_tokens=self._text_tokens)


def _total(rows: Sequence[Row]) -> Total:
    usable = [row for row in rows if row.cost is not None and not row.note]
    costs = [row.cost for row in usable if row.cost is not None]
    times = [row.seconds for row in usable if row.seconds is not None]
    return Total(
        policy=rows[0].policy,
        images=len(costs),
        visual_tokens=sum(cost.visual_tokens for cost in costs),
        flops=sum(cost.first_token.flops for cost in costs),
        seconds=sum(times) if times else None,
        most_memory_bytes=max((cost.memory_bytes for cost in costs), default=0),
        not_usable=len(rows) - len(usable),
    )
