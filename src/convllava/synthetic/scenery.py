"""Kinds of scenes of colored shapes: dialogues about them, and boxes."""

import random
from dataclasses import dataclass

from .example import Example
from .objects import Scene, marks
from .options import Size, check_fraction, check_questions, check_sizes, check_tasks
from .pages.warp import wear
from .positions import check_stride, spell_positions
from .printed import sizes_of
from .shapes.arrangement import arrange, pairs_of
from .shapes.painting import paint
from .shapes.talk import NUMBERS, SCENE_TASKS, SceneTalk, ask

MAX_OBJECTS = len(NUMBERS) - 1
"""Maximum objects of a scene: captions have number words up to twelve."""

_ATTEMPTS = 60
"""Maximum scenes painted until one allows a question of the tasks."""

_PLAIN_SHARE = 0.5
"""Share of scenes with the shapes and colors that people draw first."""


@dataclass(frozen=True)
class ScenesKind:
    """Up to ``most`` shapes of any size and a dialogue about their number, colors, shapes and places.

    Attributes:
        split: ``train`` or ``heldout``.
        sizes: (height, width) of the image, one of which is drawn.
        tasks: Keys of ``SCENE_TASKS``.
        most: Maximum number of shapes.
        noise: Strength of all degradations, from 0 (plain colors) to 1.
        questions: Maximum number of questions about an image.
        stride: If above 0, there is one question, whose answer spells the objects of each position of so many pixels,
            with their boxes (see ``positions`` and ``objects.marks``).
    """

    split: str
    sizes: tuple[Size, ...] = sizes_of((4, 60), 4)
    tasks: tuple[str, ...] = tuple(SCENE_TASKS)
    most: int = 8
    noise: float = 0.4
    questions: int = 6
    stride: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes, smallest=64))
        object.__setattr__(self, "tasks", check_tasks(self.tasks, SCENE_TASKS))
        if not isinstance(self.most, int) or not 1 <= self.most <= MAX_OBJECTS:
            raise ValueError(f"most must be a whole number from 1 to {MAX_OBJECTS}, got {self.most!r}")
        check_fraction("noise", self.noise)
        check_questions(self.questions)
        check_stride(self.stride, self.sizes)

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw a scene of ``size`` (height, width) and a dialogue about it."""
        for _ in range(_ATTEMPTS):
            pairs = pairs_of(self.split, rng.random() < _PLAIN_SHARE)
            objects = arrange(rng, size, pairs, self.most)
            image, painted, backdrop = paint(rng, objects, size, self.noise)
            scene = Scene(size, tuple(sorted(painted, key=lambda item: item.center)))
            asked = ask(SceneTalk(rng, scene, pairs, backdrop), self.tasks, self.questions)
            if not asked:
                continue
            image = wear(image, rng, self.noise)
            if self.stride:
                return Example(image, "Read.", spell_positions(marks(scene), size, self.stride), {"scene": scene})
            return Example(image, *asked[0], {"scene": scene}, tuple(asked[1:]))
        raise ValueError(f"none of {_ATTEMPTS} scenes of {size[0]}x{size[1]} allows a question: give larger sizes")


@dataclass(frozen=True)
class BoxesKind(ScenesKind):
    """Shapes of any size and questions for their boxes, on the padded square."""

    tasks: tuple[str, ...] = ("locate", "locate", "locate", "locate", "list")
