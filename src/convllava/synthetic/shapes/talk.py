"""Questions about a scene in many wordings, each with one right answer."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...geometry import box_to_square, format_box
from ..example import Asked
from ..objects import Pair, Scene, SceneObject
from ..pages.facts import LOCATE, NOT_SHOWN, vary
from ..referring import REFERRERS
from ..relations import DIRECTIONS, EXTREMES, by_size, extreme, holds, only_one, unique
from .arrangement import COLORS, OTHER_NAMES, SHAPES

NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

_CAPTION = (
    "Describe the image.",
    "What is in the image?",
    "What does the image show?",
    "Describe this image briefly.",
    "Caption this image.",
    "What can you see in the image?",
    "Give a short description of the image.",
    "Which shapes are in the image?",
    "What do you see?",
)
_LIST = (
    "List all objects with their bounding boxes.",
    "Detect all shapes and give the bounding box of each.",
    "Name everything and give the box of each.",
    "Where is everything?",
    "Locate every shape in the image.",
)
_COUNT = (
    "How many {} are there?",
    "How many {} are in the image?",
    "How many {} do you see?",
    "How many {} does the image show?",
    "Count the {}.",
    "Count the {} in the image.",
    "How many {} are there in total?",
    "How many {} can you see?",
    "What is the number of {}?",
)
_COLOR = (
    "What color is the {}?",
    "What is the color of the {}?",
    "Which color is the {}?",
    "Which color does the {} have?",
    "Tell me the color of the {}.",
    "The {} has what color?",
)
_SHAPE = (
    "What shape is the {}?",
    "What is the shape of the {}?",
    "Which shape is the {}?",
    "Which shape does the {} have?",
    "What is the {}?",
)
_EXISTS = (
    "Is there {} in the image?",
    "Is there {}?",
    "Do you see {}?",
    "Can you see {} in the image?",
    "Does the image contain {}?",
    "Does the image show {}?",
)
_RELATION = ("Is the {} {} the {}?", "Is the {} {} the {} in the image?")
_NEIGHBOR = (
    "What is {} the {}?",
    "What do you see {} the {}?",
    "Which shape is {} the {}?",
    "Name the shape {} the {}.",
)
_SIZE = ("What is the {} {}?", "Which is the {} {}?", "Name the {} {}.")
_COMPARE = ("Which is {},", "What is {},", "Which shape is {}:")
_BACKDROP = ("What color is the background?", "What is the background color?", "Which color is the background?")
_YES_NO = ("Answer yes or no.", "Answer yes or no.", "Yes or no?", "Answer with yes or no.", "", "")

_PLACES = {
    "leftmost": ("leftmost {}", "{} on the far left", "first {} from the left"),
    "rightmost": ("rightmost {}", "{} on the far right", "first {} from the right"),
    "topmost": ("topmost {}", "highest {}", "{} at the top"),
    "lowest": ("lowest {}", "{} at the bottom", "bottommost {}"),
}


class SceneTalk(NamedTuple):
    """The subject of a dialogue about a scene.

    Attributes:
        rng: The source of randomness.
        scene: The painted scene.
        pairs: Pairs of color and shape that scenes are made of.
        backdrop: Name of the background's color; None if it has no clear one.
    """

    rng: random.Random
    scene: Scene
    pairs: Sequence[Pair]
    backdrop: str | None

    def box(self, item: SceneObject) -> str:
        """Write the box of an object on the padded square."""
        height, width = self.scene.size
        return format_box(box_to_square(item.box, width, height))


def describe(scene: Scene) -> str:
    """Return a caption of all objects from left to right, equal ones together: ``a red circle and two green stars``."""
    groups = Counter((item.color, item.shape) for item in scene.objects)
    parts = [_counted(count, color, shape) for (color, shape), count in groups.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def ask_caption(talk: SceneTalk) -> Asked | None:
    """Ask for a description."""
    return talk.rng.choice(_CAPTION), describe(talk.scene)


def ask_list(talk: SceneTalk) -> Asked | None:
    """Ask for the boxes of all objects, from left to right."""
    parts = [f"{item.name} {talk.box(item)}" for item in talk.scene.objects]
    return talk.rng.choice(_LIST), ", ".join(parts)


def ask_count(talk: SceneTalk) -> Asked | None:
    """Ask how many objects there are of a shape, of a color, of both, or in all; the answer may be 0."""
    rng, objects = talk.rng, talk.scene.objects
    seen = rng.choice(objects)
    color, shape = (seen.color, seen.shape) if rng.random() < 0.85 else rng.choice(talk.pairs)
    named = rng.choice(((None, shape), (color, None), (color, shape), (None, None)))
    matches = [item for item in objects if named[0] in (item.color, None) and named[1] in (item.shape, None)]
    noun = SHAPES[named[1]] if named[1] else rng.choice(("objects", "shapes", "shapes", "figures", "things"))
    return rng.choice(_COUNT).format(f"{named[0]} {noun}" if named[0] else noun), str(len(matches))


def ask_color(talk: SceneTalk) -> Asked | None:
    """Ask for the color of an object, of the background or of a shape that is missing."""
    rng, objects = talk.rng, talk.scene.objects
    if talk.backdrop is not None and rng.random() < 0.1:
        return rng.choice(_BACKDROP), talk.backdrop
    if rng.random() < 0.06:
        missing = [shape for shape in SHAPES if all(shape != item.shape for item in objects)]
        return rng.choice(_COLOR).format(rng.choice(missing)), NOT_SHOWN
    named = [(item, _called(rng, item.shape)) for item in unique(objects, lambda t: t.shape)]
    chosen = _singled_out(talk, named)
    return None if chosen is None else (rng.choice(_COLOR).format(chosen[1]), chosen[0].color)


def ask_shape(talk: SceneTalk) -> Asked | None:
    """Ask for the shape of the only object of its color, or of one at the edge or of extreme size."""
    rng = talk.rng
    named = [(item, f"{item.color} {_noun(rng)}") for item in unique(talk.scene.objects, lambda t: t.color)]
    chosen = _singled_out(talk, named)
    return None if chosen is None else (rng.choice(_SHAPE).format(chosen[1]), chosen[0].shape)


def ask_existence(talk: SceneTalk) -> Asked | None:
    """Ask whether an object exists; for many absent ones, color and shape each occur in the scene."""
    rng, yes = talk.rng, talk.rng.random() < 0.5
    present = {(item.color, item.shape) for item in talk.scene.objects}
    colors, shapes = ({pair[place] for pair in present} for place in (0, 1))
    kind = rng.choice(("pair", "pair", "color", "shape"))
    if kind == "pair":
        fitting = [pair for pair in talk.pairs if (pair in present) == yes]
        near = [pair for pair in fitting if pair[0] in colors and pair[1] in shapes]
        close = [pair for pair in fitting if pair[0] in colors or pair[1] in shapes]
        if not fitting:
            return None
        color, shape = rng.choice(
            near if near and rng.random() < 0.4 else close if close and rng.random() < 0.7 else fitting
        )
        name = f"{color} {_called(rng, shape)}"
    else:
        seen, every = (colors, COLORS) if kind == "color" else (shapes, SHAPES)
        choices = [name for name in every if (name in seen) == yes]
        if not choices:
            return None
        chosen = rng.choice(choices)
        name = _called(rng, chosen) if kind == "shape" else f"{chosen} {_noun(rng)}"
    article = "an" if name[0] in "aeiou" else "a"
    return _yes_no(rng, rng.choice(_EXISTS).format(f"{article} {name}"), yes)


def ask_relation(talk: SceneTalk) -> Asked | None:
    """Ask whether one object is left of (...) another."""
    rng = talk.rng
    named = unique(talk.scene.objects, lambda t: t.name)
    if len(named) < 2:
        return None
    yes = rng.random() < 0.5
    for _ in range(6):
        item, other = rng.sample(named, 2)
        relation = rng.choice(tuple(DIRECTIONS))
        if holds(item, relation, other) is yes:
            words = relation if rng.random() < 0.6 or relation in ("above", "below") else f"to the {relation}"
            first, second = (_short_name(rng, talk.scene, each) for each in (item, other))
            return _yes_no(rng, rng.choice(_RELATION).format(first, words, second), yes)
    return None


def ask_neighbor(talk: SceneTalk) -> Asked | None:
    """Ask for the only object left of (...) another."""
    rng = talk.rng
    named = unique(talk.scene.objects, lambda t: t.name)
    if not named:
        return None
    other, relation = rng.choice(named), rng.choice(tuple(DIRECTIONS))
    item = only_one(talk.scene.objects, relation, other)
    if item is None:
        return None
    wording = rng.choice(_NEIGHBOR)
    words = relation if rng.random() < 0.6 or relation in ("above", "below") else f"to the {relation}"
    landmark = _short_name(rng, talk.scene, other)
    return wording.format(words, landmark), item.shape if wording.startswith("Which shape") else item.name


def ask_size(talk: SceneTalk) -> Asked | None:
    """Ask for the largest, smallest, leftmost (...) object."""
    rng, objects = talk.rng, talk.scene.objects
    if rng.random() < 0.2:
        return _compare(talk)
    if rng.random() < 0.5:
        which = rng.choice(tuple(EXTREMES))
        item = extreme(objects, which)
        phrase = rng.choice(_PLACES[which]).format(_noun(rng))
        return (
            None
            if item is None
            else (rng.choice(("What is the {}?", "Which is the {}?", "Name the {}.")).format(phrase), item.name)
        )
    which = rng.choice(("largest", "smallest"))
    item = by_size(objects, which)
    word = "biggest" if which == "largest" and rng.random() < 0.5 else which
    return None if item is None else (rng.choice(_SIZE).format(word, _noun(rng)), item.name)


def _compare(talk: SceneTalk) -> Asked | None:
    """Ask which of two objects is larger or smaller."""
    rng = talk.rng
    named = unique(talk.scene.objects, lambda t: t.name)
    if len(named) < 2:
        return None
    pair = rng.sample(named, 2)
    which = rng.choice(("largest", "smallest"))
    item = by_size(pair, which)
    if item is None:
        return None
    word = {"largest": rng.choice(("larger", "bigger")), "smallest": "smaller"}[which]
    return f"{rng.choice(_COMPARE).format(word)} the {pair[0].name} or the {pair[1].name}?", item.name


def ask_box(talk: SceneTalk) -> Asked | None:
    """Ask for the box of an object, or of one that is missing."""
    rng = talk.rng
    if rng.random() < 0.05:
        present = {item.name for item in talk.scene.objects}
        name = " ".join(rng.choice(talk.pairs))
        return None if name in present else (rng.choice(LOCATE).format(f"the {name}"), NOT_SHOWN)
    kind = rng.choice(("attribute", "attribute", "attribute", "superlative", "relation"))
    referred = REFERRERS[kind](rng, talk.scene)
    return None if referred is None else (rng.choice(LOCATE).format(referred[0]), talk.box(referred[1]))


SCENE_TASKS: dict[str, Callable[[SceneTalk], Asked | None]] = {
    "caption": ask_caption,
    "count": ask_count,
    "color": ask_color,
    "shape": ask_shape,
    "existence": ask_existence,
    "relation": ask_relation,
    "neighbor": ask_neighbor,
    "size": ask_size,
    "locate": ask_box,
    "list": ask_list,
}
"""Every task by its name in the option ``tasks``."""


def ask(talk: SceneTalk, tasks: Sequence[str], questions: int) -> list[Asked]:
    """Return up to ``questions`` different questions."""
    found: dict[str, str] = {}
    for _ in range(4 * questions + 4):
        asked = SCENE_TASKS[talk.rng.choice(tasks)](talk)
        # A long answer is given once, however it is asked for.
        if asked is not None and asked[0] not in found and (len(asked[1]) < 30 or asked[1] not in found.values()):
            found[asked[0]] = asked[1]
        if len(found) == questions:
            break
    return [(vary(talk.rng, question), answer) for question, answer in found.items()]


def _counted(count: int, color: str, shape: str) -> str:
    if count == 1:
        return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape}"
    return f"{NUMBERS[count]} {color} {SHAPES[shape]}"


def _singled_out(talk: SceneTalk, named: list[tuple[SceneObject, str]]) -> tuple[SceneObject, str] | None:
    """Choose an object with a name that fits no other, from ``named``, the superlatives and the places."""
    rng, objects = talk.rng, talk.scene.objects
    sized = {which: by_size(objects, which) for which in ("largest", "smallest")}
    more = [(item, f"{which} {_noun(rng)}") for which, item in sized.items() if item is not None]
    which = rng.choice(tuple(EXTREMES))
    edge = extreme(objects, which)
    if edge is not None:
        more.append((edge, rng.choice(_PLACES[which]).format(_noun(rng))))
    return rng.choice(named + more) if named + more else None


def _short_name(rng: random.Random, scene: Scene, item: SceneObject) -> str:
    """Return color and shape, or at times the shape alone where no other object has it."""
    alone = sum(other.shape == item.shape for other in scene.objects) == 1
    return item.shape if alone and rng.random() < 0.4 else item.name


def _called(rng: random.Random, shape: str) -> str:
    return OTHER_NAMES[shape] if shape in OTHER_NAMES and rng.random() < 0.3 else shape


def _noun(rng: random.Random) -> str:
    return rng.choice(("shape", "shape", "object", "figure", "thing"))


def _yes_no(rng: random.Random, question: str, yes: bool) -> Asked:
    return f"{question} {rng.choice(_YES_NO)}".strip(), "yes" if yes else "no"
