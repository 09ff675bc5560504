"""Where things stand to one another, told only where nobody would argue."""

from collections.abc import Callable, Sequence

from .things import Thing

DIRECTIONS: dict[str, tuple[int, int]] = {
    "left of": (0, -1),
    "right of": (0, 1),
    "above": (1, -1),
    "below": (1, 1),
}
"""Each relation with its axis (0 = x, 1 = y) and the sign of that axis."""

EXTREMES: dict[str, tuple[int, int]] = {
    "leftmost": (0, -1),
    "rightmost": (0, 1),
    "topmost": (1, -1),
    "lowest": (1, 1),
}

_CLEAR_STEP = 8
"""Pixels by which a superlative holds, or a relation fails, at least."""

_CLEAR_RATIO = 1.25
"""How many times larger the largest thing is than the next."""


def holds(thing: Thing, relation: str, other: Thing) -> bool | None:
    """Say whether ``thing`` is left of (...) ``other``; None if one could argue.

    It holds when the boxes share no part of that axis, and fails when the centers clearly stand otherwise.
    """
    axis, sign = DIRECTIONS[relation]
    near, far = (thing.box[axis + 2], other.box[axis]) if sign < 0 else (other.box[axis + 2], thing.box[axis])
    if near <= far:
        return True
    if sign * (thing.center[axis] - other.center[axis]) <= -_CLEAR_STEP:
        return False
    return None


def only_one(things: Sequence[Thing], relation: str, other: Thing) -> Thing | None:
    """Return the one thing that stands in the relation to ``other``; None unless it is clearly just one."""
    answers = {thing: holds(thing, relation, other) for thing in things if thing is not other}
    found = [thing for thing, answer in answers.items() if answer]
    return found[0] if len(found) == 1 and None not in answers.values() else None


def extreme(things: Sequence[Thing], which: str) -> Thing | None:
    """Return the leftmost (...) thing if it is so by a clear step."""
    axis, sign = EXTREMES[which]
    ranked = sorted(things, key=lambda thing: sign * thing.center[axis], reverse=True)
    if len(ranked) < 2 or abs(ranked[0].center[axis] - ranked[1].center[axis]) < _CLEAR_STEP:
        return None
    return ranked[0]


def by_size(things: Sequence[Thing], which: str) -> Thing | None:
    """Return the ``largest`` or ``smallest`` thing if it is so by a clear ratio, in side and also in area."""
    ranked = sorted(things, key=lambda thing: thing.side, reverse=which == "largest")
    if len(ranked) < 2:
        return None
    first, others = ranked[0], ranked[1:]
    if which == "largest":
        clear = all(first.side >= _CLEAR_RATIO * t.side and first.area > t.area for t in others)
    else:
        clear = all(t.side >= _CLEAR_RATIO * first.side and t.area > first.area for t in others)
    return first if clear else None


def unique(things: Sequence[Thing], key: Callable[[Thing], object]) -> list[Thing]:
    """Return the things that share their key with no other."""
    keys = [key(thing) for thing in things]
    return [thing for thing, value in zip(things, keys, strict=True) if keys.count(value) == 1]
