"""Spatial relations between objects, decided only where they are unambiguous."""

from collections.abc import Callable, Sequence

from .objects import SceneObject

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
"""Minimum distance in pixels for a superlative to hold or a relation to fail."""

_CLEAR_RATIO = 1.25
"""Minimum ratio between the largest object and the next."""


def holds(item: SceneObject, relation: str, other: SceneObject) -> bool | None:
    """Return whether ``item`` is left of (...) ``other``; None if that is ambiguous.

    It holds when the boxes do not overlap along that axis, and fails when the centers are clearly in the other order.
    """
    axis, sign = DIRECTIONS[relation]
    near, far = (item.box[axis + 2], other.box[axis]) if sign < 0 else (other.box[axis + 2], item.box[axis])
    if near <= far:
        return True
    if sign * (item.center[axis] - other.center[axis]) <= -_CLEAR_STEP:
        return False
    return None


def only_one(objects: Sequence[SceneObject], relation: str, other: SceneObject) -> SceneObject | None:
    """Return the only object in the relation to ``other``; None if there are several, none, or ambiguous ones."""
    answers = {item: holds(item, relation, other) for item in objects if item is not other}
    found = [item for item, answer in answers.items() if answer]
    return found[0] if len(found) == 1 and None not in answers.values() else None


def extreme(objects: Sequence[SceneObject], which: str) -> SceneObject | None:
    """Return the leftmost (...) object; None if its distance to the next is too small."""
    axis, sign = EXTREMES[which]
    ranked = sorted(objects, key=lambda item: sign * item.center[axis], reverse=True)
    if len(ranked) < 2 or abs(ranked[0].center[axis] - ranked[1].center[axis]) < _CLEAR_STEP:
        return None
    return ranked[0]


def by_size(objects: Sequence[SceneObject], which: str) -> SceneObject | None:
    """Return the ``largest`` or ``smallest`` object; None if its side or area is too close to another's."""
    ranked = sorted(objects, key=lambda item: item.side, reverse=which == "largest")
    if len(ranked) < 2:
        return None
    first, others = ranked[0], ranked[1:]
    if which == "largest":
        clear = all(first.side >= _CLEAR_RATIO * t.side and first.area > t.area for t in others)
    else:
        clear = all(t.side >= _CLEAR_RATIO * first.side and t.area > first.area for t in others)
    return first if clear else None


def unique(objects: Sequence[SceneObject], key: Callable[[SceneObject], object]) -> list[SceneObject]:
    """Return the objects whose key no other object has."""
    keys = [key(item) for item in objects]
    return [item for item, value in zip(objects, keys, strict=True) if keys.count(value) == 1]
