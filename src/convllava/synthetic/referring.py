"""Referring expressions: each fits exactly one object of a scene."""

import random
from collections.abc import Callable

from .objects import Scene, SceneObject
from .relations import DIRECTIONS, EXTREMES, by_size, extreme, holds, unique

Referred = tuple[str, SceneObject]
"""An expression with its article, and the object that it refers to."""

Referrer = Callable[[random.Random, Scene], Referred | None]


def by_attribute(rng: random.Random, scene: Scene) -> Referred | None:
    """Refer by color, shape or both, and by size where only the size differs."""
    noun = rng.choice(("thing", "object", "shape"))
    found = [(f"the {item.shape}", item) for item in unique(scene.objects, lambda t: t.shape)]
    found += [(f"the {item.color} {noun}", item) for item in unique(scene.objects, lambda t: t.color)]
    pairs = unique(scene.objects, lambda t: t.name)
    found += [(f"the {item.name}", item) for item in pairs]
    sized = unique(scene.objects, lambda t: (t.name, t.large))
    found += [(f"the {_size_word(item)} {item.name}", item) for item in sized if item not in pairs]
    return rng.choice(found) if found else None


def by_superlative(rng: random.Random, scene: Scene) -> Referred | None:
    """Refer to the largest, smallest, leftmost (...) of all objects, or of those of one shape."""
    shape = rng.choice(scene.objects).shape if rng.random() < 0.5 else None
    objects = [item for item in scene.objects if shape in (item.shape, None)]
    noun = shape or rng.choice(("thing", "object", "shape"))
    which = rng.choice((*EXTREMES, "largest", "smallest"))
    item = extreme(objects, which) if which in EXTREMES else by_size(objects, which)
    return (f"the {which} {noun}", item) if item is not None else None


def by_relation(rng: random.Random, scene: Scene) -> Referred | None:
    """Refer to the only object of its shape, color or both that is left of (...) a landmark."""
    landmarks = unique(scene.objects, lambda t: t.name)
    if not landmarks or len(scene.objects) < 2:
        return None
    landmark, relation = rng.choice(landmarks), rng.choice(tuple(DIRECTIONS))
    target = rng.choice([item for item in scene.objects if item is not landmark])
    name, rivals = _called(rng, target, scene)
    answers = {item: holds(item, relation, landmark) for item in rivals if item is not landmark}
    clear = None not in answers.values() and [t for t, answer in answers.items() if answer] == [target]
    return (f"the {name} {relation} the {landmark.name}", target) if clear else None


REFERRERS: dict[str, Referrer] = {
    "attribute": by_attribute,
    "superlative": by_superlative,
    "relation": by_relation,
}
"""Every kind of expression by its name in the option ``tasks``."""


def _called(rng: random.Random, target: SceneObject, scene: Scene) -> tuple[str, list[SceneObject]]:
    """Return a name of the target and all objects that the name fits."""
    if rng.random() < 0.6:
        return target.shape, [item for item in scene.objects if item.shape == target.shape]
    if rng.random() < 0.5:
        return target.name, [item for item in scene.objects if item.name == target.name]
    return f"{target.color} thing", [item for item in scene.objects if item.color == target.color]


def _size_word(item: SceneObject) -> str:
    return "large" if item.large else "small"
