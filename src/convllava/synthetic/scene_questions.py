"""Questions about a scene with an unambiguous answer.

A question maker gets the random stream, the scene, the pairs of color and shape that scenes are made of and, for
yes-no questions, the required answer: it is drawn before the scene, so that both answers are equally frequent. It
returns None if the scene does not allow such a question; the caller then lays out another.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from .example import Asked
from .objects import COLORS, SHAPES, Pair, Scene, SceneObject
from .relations import DIRECTIONS, by_size, holds, only_one, unique

Asker = Callable[[random.Random, Scene, Sequence[Pair], bool], Asked | None]
"""(random stream, scene, pairs that scenes are made of, whether "yes" is required) -> question and answer, or None."""

_NUMBERS = (
    "no",
    "a",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)

MAX_OBJECTS = len(_NUMBERS) - 1
"""Maximum objects of a scene: captions have number words up to twelve."""


def describe(scene: Scene) -> str:
    """Return a caption of all objects from left to right, equal ones together: ``a red circle and two green stars``."""
    groups = Counter((item.color, item.shape) for item in scene.objects)
    parts = [_counted(count, color, shape) for (color, shape), count in groups.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def ask_caption(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask for a description."""
    wordings = (
        "Describe the picture.",
        "What is in the picture?",
        "What does the picture show?",
        "Caption this.",
    )
    return rng.choice(wordings), describe(scene)


def ask_count(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask how many objects there are of a shape, of a color, of both, or in all; the answer may be 0."""
    color, shape = _name_to_count(rng, scene, pairs)
    matches = [t for t in scene.objects if color in (t.color, None) and shape in (t.shape, None)]
    noun = SHAPES[shape] if shape else rng.choice(("things", "objects", "shapes"))
    name = f"{color} {noun}" if color else noun
    wordings = (
        "How many {} are there?",
        "How many {} are in the picture?",
        "How many {} do you see?",
        "Count the {}.",
    )
    return rng.choice(wordings).format(name), str(len(matches))


def ask_color(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask for the color of the only object of its shape, or of the largest or smallest."""
    chosen = _singled_out(rng, scene.objects, [(t, t.shape) for t in unique(scene.objects, lambda t: t.shape)])
    if chosen is None:
        return None
    item, name = chosen
    wordings = (
        "What colour is the {}?",
        "What color is the {}?",
        "Which colour has the {}?",
        "Tell the colour of the {}.",
    )
    return rng.choice(wordings).format(name), item.color


def ask_shape(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask for the shape of the only object of its color, or of the largest or smallest."""
    named = [(t, f"{t.color} {_noun(rng)}") for t in unique(scene.objects, lambda t: t.color)]
    chosen = _singled_out(rng, scene.objects, named)
    if chosen is None:
        return None
    item, name = chosen
    wordings = (
        "What shape is the {}?",
        "What shape has the {}?",
        "Which shape is the {}?",
        "Tell the shape of the {}.",
    )
    return rng.choice(wordings).format(name), item.shape


def ask_existence(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask whether an object exists; for half of the absent ones, color and shape each occur in the scene."""
    present = {(t.color, t.shape) for t in scene.objects}
    kind = rng.choice(("pair", "pair", "color", "shape"))
    if kind == "pair":
        fitting = [pair for pair in pairs if (pair in present) == yes]
        near = [pair for pair in fitting if _half_seen(pair, present)]
        name = " ".join(rng.choice(near if near and rng.random() < 0.5 else fitting))
    else:
        place, every = (0, COLORS) if kind == "color" else (1, SHAPES)
        seen, known = {pair[place] for pair in present}, {pair[place] for pair in pairs}
        names = [name for name in every if name in known and (name in seen) == yes]
        if not names:
            return None
        name = rng.choice(names) if kind == "shape" else f"{rng.choice(names)} {_noun(rng)}"
    article = "an" if name[0] in "aeiou" else "a"
    wordings = (
        "Is there {} {}?",
        "Is there {} {} in the picture?",
        "Do you see {} {}?",
        "Can you see {} {}?",
    )
    return rng.choice(wordings).format(article, name), _yes_no(yes)


def ask_relation(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask whether one object is left of (...) another."""
    named = unique(scene.objects, lambda t: t.name)
    if len(named) < 2:
        return None
    item, other = rng.sample(named, 2)
    fitting = [relation for relation in DIRECTIONS if holds(item, relation, other) is yes]
    if not fitting:
        return None
    relation = rng.choice(fitting)
    to = "to the " if relation in ("left of", "right of") and rng.random() < 0.5 else ""
    wordings = ("Is the {} {}{} the {}?", "Is the {} {}{} the {}?", "Does the {} stand {}{} the {}?")
    return rng.choice(wordings).format(item.name, to, relation, other.name), _yes_no(yes)


def ask_neighbor(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask for the only object left of (...) another."""
    named = unique(scene.objects, lambda t: t.name)
    if not named:
        return None
    other, relation = rng.choice(named), rng.choice(tuple(DIRECTIONS))
    item = only_one(scene.objects, relation, other)
    if item is None:
        return None
    wordings = (
        "What is {} the {}?",
        "What is {} the {}?",
        "What do you see {} the {}?",
        "Which shape is {} the {}?",
    )
    wording = rng.choice(wordings)
    answer = item.shape if wording.startswith("Which shape") else item.name
    return wording.format(relation, other.name), answer


def ask_size(rng: random.Random, scene: Scene, pairs: Sequence[Pair], yes: bool) -> Asked | None:
    """Ask for the largest or the smallest object."""
    which = rng.choice(("largest", "smallest"))
    item = by_size(scene.objects, which)
    if item is None:
        return None
    word = rng.choice((which, {"largest": "biggest", "smallest": "smallest"}[which]))
    wordings = ("What is the {} {}?", "Which is the {} {}?", "Name the {} {}.")
    return rng.choice(wordings).format(word, _noun(rng)), item.name


SCENE_TASKS: dict[str, Asker] = {
    "caption": ask_caption,
    "count": ask_count,
    "color": ask_color,
    "shape": ask_shape,
    "existence": ask_existence,
    "relation": ask_relation,
    "neighbor": ask_neighbor,
    "size": ask_size,
}
"""Every task by its name in the option ``tasks``."""


def _counted(count: int, color: str, shape: str) -> str:
    if count == 1:
        return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape}"
    return f"{_NUMBERS[count]} {color} {SHAPES[shape]}"


def _name_to_count(rng: random.Random, scene: Scene, pairs: Sequence[Pair]) -> tuple[str | None, str | None]:
    seen = rng.choice(scene.objects)
    color, shape = (seen.color, seen.shape) if rng.random() < 0.85 else rng.choice(pairs)
    return rng.choice(((None, shape), (color, None), (color, shape), (None, None)))


def _singled_out(
    rng: random.Random, objects: Sequence[SceneObject], named: list[tuple[SceneObject, str]]
) -> tuple[SceneObject, str] | None:
    """Choose an object with a name that fits no other, from ``named`` and the superlatives."""
    sized = {which: by_size(objects, which) for which in ("largest", "smallest")}
    named = named + [(item, f"{which} {_noun(rng)}") for which, item in sized.items() if item is not None]
    return rng.choice(named) if named else None


def _half_seen(pair: Pair, present: set[Pair]) -> bool:
    return any(pair[0] == color for color, _ in present) and any(pair[1] == shape for _, shape in present)


def _noun(rng: random.Random) -> str:
    return rng.choice(("thing", "object", "shape"))


def _yes_no(yes: bool) -> str:
    return "yes" if yes else "no"
