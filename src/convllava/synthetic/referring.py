"""Expressions that fit one thing of a scene and no other."""

import random
from collections.abc import Callable

from .relations import DIRECTIONS, EXTREMES, by_size, extreme, holds, unique
from .things import Scene, Thing

Referred = tuple[str, Thing]
"""An expression, with its article, and what it means."""

Referrer = Callable[[random.Random, Scene], Referred | None]


def by_attribute(rng: random.Random, scene: Scene) -> Referred | None:
    """Refer by color, shape, or both, with the size where that alone tells two apart."""
    noun = rng.choice(("thing", "object", "shape"))
    found = [(f"the {thing.shape}", thing) for thing in unique(scene.things, lambda t: t.shape)]
    found += [(f"the {thing.color} {noun}", thing) for thing in unique(scene.things, lambda t: t.color)]
    pairs = unique(scene.things, lambda t: t.name)
    found += [(f"the {thing.name}", thing) for thing in pairs]
    sized = unique(scene.things, lambda t: (t.name, t.large))
    found += [(f"the {_size_word(thing)} {thing.name}", thing) for thing in sized if thing not in pairs]
    return rng.choice(found) if found else None


def by_superlative(rng: random.Random, scene: Scene) -> Referred | None:
    """Refer to the largest, smallest, leftmost (...) of all things, or of those of one shape."""
    shape = rng.choice(scene.things).shape if rng.random() < 0.5 else None
    things = [thing for thing in scene.things if shape in (thing.shape, None)]
    noun = shape or rng.choice(("thing", "object", "shape"))
    which = rng.choice((*EXTREMES, "largest", "smallest"))
    thing = extreme(things, which) if which in EXTREMES else by_size(things, which)
    return (f"the {which} {noun}", thing) if thing is not None else None


def by_relation(rng: random.Random, scene: Scene) -> Referred | None:
    """Refer to the one thing of its shape, color or both that stands left of (...) a landmark."""
    landmarks = unique(scene.things, lambda t: t.name)
    if not landmarks or len(scene.things) < 2:
        return None
    landmark, relation = rng.choice(landmarks), rng.choice(tuple(DIRECTIONS))
    target = rng.choice([thing for thing in scene.things if thing is not landmark])
    name, rivals = _called(rng, target, scene)
    answers = {thing: holds(thing, relation, landmark) for thing in rivals if thing is not landmark}
    clear = None not in answers.values() and [t for t, answer in answers.items() if answer] == [target]
    return (f"the {name} {relation} the {landmark.name}", target) if clear else None


REFERRERS: dict[str, Referrer] = {
    "attribute": by_attribute,
    "superlative": by_superlative,
    "relation": by_relation,
}
"""Every way to refer, by the name that the option ``tasks`` uses."""


def _called(rng: random.Random, target: Thing, scene: Scene) -> tuple[str, list[Thing]]:
    """Return a name of the target and all things that it fits."""
    if rng.random() < 0.6:
        return target.shape, [thing for thing in scene.things if thing.shape == target.shape]
    if rng.random() < 0.5:
        return target.name, [thing for thing in scene.things if thing.name == target.name]
    return f"{target.color} thing", [thing for thing in scene.things if thing.color == target.color]


def _size_word(thing: Thing) -> str:
    return "large" if thing.large else "small"
