"""Scenes of colored shapes, with questions about them or about the boxes of objects."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..geometry import Box, box_to_square, format_box
from .example import Asked, Example
from .objects import Pair, Scene, combinations, lay_out, marks
from .options import Size, check_fraction, check_questions, check_sizes, check_tasks
from .paint import paint
from .positions import check_stride, spell_positions
from .referring import REFERRERS, Referred
from .scene_questions import MAX_OBJECTS, SCENE_TASKS

_SIZES: tuple[Size, ...] = ((128, 128), (128, 192), (192, 128))

_SMALLEST_SIDE = 80
"""Minimum side in pixels, in which a large and a small object fit."""

_ATTEMPTS = 500
"""Maximum scenes laid out for a question; one in ten allows even the rarest."""

_TASKS_FOR_TWO = {"relation", "neighbor", "size", "superlative"}

_LOCATE_ALL = ("Where is everything?", "Name everything and give the box of each.", "Locate everything.")

_LOCATE = ("Where is {}?", "Give the box of {}.", "Locate {}.", "Find {}.", "Where do you see {}?")

T = TypeVar("T")


@dataclass(frozen=True)
class SceneKind:
    """Up to ``most`` shapes and questions about their number, colors, shapes and relations.

    Attributes:
        split: ``train`` or ``heldout``.
        sizes: (height, width) of the image, one of which is drawn.
        tasks: Keys of ``SCENE_TASKS``.
        most: Maximum number of shapes.
        noise: Strength of all degradations, from 0 (plain colors on white) to 1.
        wider: Whether to add colors and shapes that the benchmarks do not use.
        questions: Maximum number of questions about an image.
        stride: If above 0, there is one question, whose answer spells the objects of each position of so many pixels,
            with their boxes (see ``positions`` and ``objects.marks``).
    """

    split: str
    sizes: tuple[Size, ...] = _SIZES
    tasks: tuple[str, ...] = tuple(SCENE_TASKS)
    most: int = 6
    noise: float = 0.5
    wider: bool = False
    questions: int = 1
    stride: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes, smallest=_SMALLEST_SIDE))
        object.__setattr__(self, "tasks", check_tasks(self.tasks, SCENE_TASKS))
        _check_most(self.most, self.tasks)
        check_fraction("noise", self.noise)
        check_questions(self.questions)
        check_stride(self.stride, self.sizes)

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw a scene of ``size`` (height, width) and ask about it."""
        task, yes = SCENE_TASKS[rng.choice(self.tasks)], rng.random() < 0.5
        pairs = combinations(self.split, self.wider)
        scene, (question, answer) = _until(
            lambda: lay_out(rng, size, pairs, self.most), lambda scene: task(rng, scene, pairs, yes)
        )
        more = self._more(rng, scene, pairs)
        image, scene = paint(rng, scene, self.noise)
        if self.stride:
            return Example(image, question, spell_positions(marks(scene), size, self.stride), {"scene": scene})
        return Example(image, question, answer, {"scene": scene}, more)

    def _more(self, rng: random.Random, scene: Scene, pairs: Sequence[Pair]) -> tuple[Asked, ...]:
        """Return further questions; one that the scene does not allow is left out."""
        askers = [SCENE_TASKS[rng.choice(self.tasks)] for _ in range(self.questions - 1)]
        asked = [ask(rng, scene, pairs, rng.random() < 0.5) for ask in askers]
        return tuple(pair for pair in asked if pair is not None)


@dataclass(frozen=True)
class GroundingKind:
    """Up to ``most`` shapes and questions for the box of one of them, on the padded square.

    Attributes:
        split: ``train`` or ``heldout``.
        sizes: (height, width) of the image, one of which is drawn.
        tasks: Kinds of referring expressions: ``attribute``, ``superlative`` or ``relation``.
        most: Maximum number of shapes.
        noise: Strength of all degradations, from 0 (plain colors on white) to 1.
        wider: Whether to add colors and shapes that the benchmarks do not use.
        questions: Maximum number of questions about an image.
        everything: Whether one more question asks for the boxes of all objects, from left to right; one image then
            teaches many boxes.
    """

    split: str
    sizes: tuple[Size, ...] = _SIZES
    tasks: tuple[str, ...] = tuple(REFERRERS)
    most: int = 6
    noise: float = 0.5
    wider: bool = False
    questions: int = 1
    everything: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes, smallest=_SMALLEST_SIDE))
        object.__setattr__(self, "tasks", check_tasks(self.tasks, REFERRERS))
        _check_most(self.most, self.tasks)
        check_fraction("noise", self.noise)
        check_questions(self.questions)

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw a scene of ``size`` (height, width) and ask for the boxes of objects."""
        refer = REFERRERS[rng.choice(self.tasks)]
        pairs = combinations(self.split, self.wider)
        scene, (name, target) = _until(lambda: lay_out(rng, size, pairs, self.most), lambda scene: refer(rng, scene))
        referred = [(name, target), *self._more(rng, scene)]
        image, painted = paint(rng, scene, self.noise)
        boxes = [painted.objects[scene.objects.index(target)].box for _, target in referred]
        asked = [
            (rng.choice(_LOCATE).format(name), _answer(box, size))
            for (name, _), box in zip(referred, boxes, strict=True)
        ]
        if self.everything:
            # At a random place: always first, it would teach that a dialogue about boxes begins with all of them.
            asked.insert(rng.randint(0, len(asked)), (rng.choice(_LOCATE_ALL), _answer_all(painted)))
        return Example(image, *asked[0], {"scene": painted, "box": boxes[0]}, tuple(asked[1:]))

    def _more(self, rng: random.Random, scene: Scene) -> list[Referred]:
        """Return further expressions; one that the scene does not allow is left out."""
        referrers = [REFERRERS[rng.choice(self.tasks)] for _ in range(self.questions - 1)]
        referred = [refer(rng, scene) for refer in referrers]
        return [pair for pair in referred if pair is not None]


def _answer(box: Box, size: Size) -> str:
    height, width = size
    return format_box(box_to_square(box, width, height))


def _answer_all(scene: Scene) -> str:
    """Return every object with its box: ``red circle [0.12, 0.34, 0.56, 0.78], green star [...]``."""
    return ", ".join(f"{item.name} {_answer(item.box, scene.size)}" for item in scene.objects)


def _until(make: Callable[[], Scene], ask: Callable[[Scene], T | None]) -> tuple[Scene, T]:
    """Lay out scenes until one allows the question; a different question instead would bias the answers."""
    for _ in range(_ATTEMPTS):
        scene = make()
        asked = ask(scene)
        if asked is not None:
            return scene, asked
    height, width = scene.size
    raise ValueError(f"none of {_ATTEMPTS} scenes of {height}x{width} allows the question: give larger sizes")


def _check_most(most: int, tasks: tuple[str, ...]) -> None:
    alone = _TASKS_FOR_TWO.intersection(tasks)
    if most == 1 and alone:
        raise ValueError(f"task {min(alone)!r} needs two objects, but most is 1")
    if not isinstance(most, int) or not 1 <= most <= MAX_OBJECTS:
        raise ValueError(f"most must be a whole number from 1 to {MAX_OBJECTS}, got {most!r}")
