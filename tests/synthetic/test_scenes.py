"""Scenes: every question has one answer, and the answer agrees with the drawing."""

import math
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convllava.geometry import box_from_square, box_iou, find_boxes
from convllava.synthetic import Example, SyntheticDataset
from convllava.synthetic.objects import COLORS, SHAPES, Scene, SceneObject, combinations, lay_out
from convllava.synthetic.paint import paint
from convllava.synthetic.relations import by_size, extreme, holds, only_one
from convllava.synthetic.scene_questions import SCENE_TASKS, describe

NOUNS = "things?|objects?|shapes?"


def draw(kind: str, count: int, **options: Any) -> list[Example]:
    dataset = SyntheticDataset(kind, count=count, **options)
    return [dataset.example(index) for index in range(count)]


def scene_of(example: Example) -> Scene:
    scene = example.facts["scene"]
    assert isinstance(scene, Scene)
    return scene


def item(color: str, shape: str, x: float, y: float, side: float = 20) -> SceneObject:
    return SceneObject(color, shape, False, 0.0, (x, y, x + side, y + side))


def matching(scene: Scene, words: str) -> list[SceneObject]:
    """Objects named by ``red stars`` or ``large blue objects``."""
    found = list(scene.objects)
    for word in words.split():
        shapes = [shape for shape, plural in SHAPES.items() if word in (shape, plural)]
        if word in COLORS:
            found = [t for t in found if t.color == word]
        elif shapes:
            found = [t for t in found if t.shape == shapes[0]]
        else:
            assert re.fullmatch(NOUNS, word), words
    return found


def test_counts_agree_with_the_scene() -> None:
    for example in draw("scene", 200, tasks=["count"]):
        match = re.search(
            r"(?:How many|Count the) (.*?)(?: are there| are in the picture| do you see)?[?.]$",
            example.question,
        )
        assert match is not None, example.question
        assert int(example.answer) == len(matching(scene_of(example), match[1])), example.question


def test_counts_vary() -> None:
    counts = Counter(example.answer for example in draw("scene", 300, tasks=["count"]))
    assert {"0", "1", "2", "3", "4", "5"} <= set(counts)
    assert max(counts.values()) < 150


@pytest.mark.parametrize("task", ["existence", "relation"])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_yes_and_no_are_equally_frequent(task: str, split: str) -> None:
    answers = Counter(example.answer for example in draw("scene", 400, tasks=[task], split=split))
    assert set(answers) == {"yes", "no"}
    assert 160 <= answers["yes"] <= 240


def test_existence_agrees_with_the_scene() -> None:
    for example in draw("scene", 200, tasks=["existence"]):
        match = re.search(r" an? (.*?)(?: in the picture)?\?$", example.question)
        assert match is not None
        assert (example.answer == "yes") == bool(matching(scene_of(example), match[1])), example.question


def test_relations_agree_with_the_scene() -> None:
    pattern = re.compile(r"the (\w+ \w+) (?:stand )?(?:to the )?(left of|right of|above|below) the (\w+ \w+)\?")
    for example in draw("scene", 200, tasks=["relation"]):
        match = pattern.search(example.question)
        assert match is not None, example.question
        (one,), (other,) = matching(scene_of(example), match[1]), matching(scene_of(example), match[3])
        axis = 0 if "of" in match[2] else 1
        before = one.center[axis] < other.center[axis]
        assert (example.answer == "yes") == (before == (match[2] in ("left of", "above"))), example.question


def test_colors_and_shapes_are_unambiguous() -> None:
    for example in draw("scene", 200, tasks=["color", "shape"]):
        words = re.sub(r"^.* the |[?.]$", "", example.question).replace("has", "").split()
        if words[0] in ("largest", "smallest"):
            ranked = sorted(scene_of(example).objects, key=lambda t: t.side)
            found = ranked[-1 if words[0] == "largest" else 0]
        else:
            (found,) = matching(scene_of(example), " ".join(words))
        assert example.answer in (found.color, found.shape), example.question


def test_caption_names_all_objects_from_left_to_right() -> None:
    scene = Scene(
        (100, 200),
        (
            item("red", "circle", 5, 5),
            item("green", "star", 40, 50),
            item("orange", "square", 80, 5),
            item("green", "star", 120, 5),
        ),
    )
    assert describe(scene) == "a red circle, two green stars and an orange square"
    assert describe(Scene((100, 200), scene.objects[:1])) == "a red circle"
    for example in draw("scene", 50, tasks=["caption"]):
        objects = scene_of(example).objects
        assert all(t.color in example.answer and t.shape in example.answer for t in objects)


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_the_question_belongs_to_the_task(task: str) -> None:
    captions = re.compile(r"Describe the|What is in the|What does the picture show|Caption this")
    for example in draw("scene", 60, tasks=[task]):
        assert bool(captions.match(example.question)) == (task == "caption")


@given(
    seed=st.integers(0, 10**6),
    height=st.integers(80, 300),
    width=st.integers(80, 300),
    most=st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_objects_neither_overlap_nor_leave_the_image(seed: int, height: int, width: int, most: int) -> None:
    rng = random.Random(seed)
    scene = lay_out(rng, (height, width), combinations("train", wider=True), most)
    image, painted = paint(rng, scene, noise=1.0)
    assert image.size == (width, height) and 1 <= len(painted.objects) <= most
    for index, one in enumerate(painted.objects):
        x0, y0, x1, y1 = one.box
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert max(x1 - x0, y1 - y0) >= 20
        assert all(box_iou(one.box, other.box) == 0 for other in painted.objects[index + 1 :])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [-8.0, 0.0, 8.0])
def test_box_is_tight_around_the_pixels(shape: str, degrees: float) -> None:
    scene = Scene((100, 120), (SceneObject("red", shape, True, degrees, (30, 20, 74, 64)),))
    image, painted = paint(random.Random(0), scene, noise=0)
    pixels = np.asarray(image).astype(int)
    red = np.abs(pixels - pixels.min(axis=(0, 1))).sum(axis=2) < 200
    ys, xs = np.nonzero(red)
    seen = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert np.abs(np.subtract(seen, painted.objects[0].box)).max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_area_is_close_to_the_painted_area(shape: str) -> None:
    """An approximate area is enough: questions about size have a clear margin."""
    one = item("red", shape, 20, 20, side=60)
    image, _ = paint(random.Random(0), Scene((100, 100), (one,)), noise=0)
    ink = (np.asarray(image)[..., 1] < 128).sum()
    assert ink == pytest.approx(one.area, rel=0.1)


def test_the_answered_box_contains_the_object() -> None:
    """The box in the answer maps back to the object, whose color fills most of its center."""
    for example in draw("grounding", 150, noise=0):
        height, width = scene_of(example).size
        (fractions,) = find_boxes(example.answer)
        box = box_from_square(fractions, width, height)
        assert box_iou(box, example.facts["box"]) > 0.8
        (target,) = [t for t in scene_of(example).objects if t.box == example.facts["box"]]
        x0, y0, x1, y1 = (round(value) for value in target.box)
        inside = np.asarray(example.image)[y0:y1, x0:x1].reshape(-1, 3).astype(float)
        near = np.linalg.norm(inside - np.array(COLORS[target.color]), axis=1) < 40
        assert near.mean() > 0.25, example.question


def test_all_objects_have_their_boxes_from_left_to_right() -> None:
    places = set()
    for example in draw("grounding", 30, everything=True, questions=2):
        scene = scene_of(example)
        height, width = scene.size
        answers = [answer for _, answer in ((example.question, example.answer), *example.more)]
        (place,) = [i for i, answer in enumerate(answers) if not answer.startswith("[")]
        places.add(place)
        names = [" ".join(part.split()[:2]) for part in re.sub(r"\[.*?\]", "", answers[place]).split(", ")]
        boxes = [box_from_square(fractions, width, height) for fractions in find_boxes(answers[place])]
        assert names == [item.name for item in scene.objects], answers
        assert all(box_iou(box, item.box) > 0.8 for box, item in zip(boxes, scene.objects, strict=True))
        assert all(len(find_boxes(answer)) == 1 for i, answer in enumerate(answers) if i != place)
    assert len(places) > 1, "asked for one box first, a model must not list all"


def test_expressions_fit_one_object() -> None:
    for example in draw("grounding", 200, tasks=["attribute"]):
        name = re.sub(
            r"^.*? the (?:box of the )?|[?.]$",
            "",
            example.question.replace("Find the", "- the").replace("Locate the", "- the"),
        )
        words = name.split()
        large = {"large": True, "small": False}.get(words[0])
        found = matching(scene_of(example), " ".join(words[large is not None :]))
        if large is not None:
            found = [t for t in found if t.large == large]
        assert [t.box for t in found] == [example.facts["box"]], example.question


def test_training_lacks_some_pairs_of_held_out_scenes() -> None:
    missing = set(combinations("heldout")) - set(combinations("train"))
    assert len(missing) >= 8
    for part in (0, 1):
        assert {pair[part] for pair in combinations("train")} == {pair[part] for pair in combinations("heldout")}
    seen = {
        split: {(t.color, t.shape) for e in draw("scene", 150, split=split) for t in scene_of(e).objects}
        for split in ("train", "heldout")
    }
    assert not seen["train"] & missing and seen["heldout"] & missing


@pytest.mark.parametrize("kind", ["scene", "grounding"])
def test_wider_scenes_have_more_colors_and_shapes_and_no_held_out_pair(kind: str) -> None:
    held_out = set(combinations("heldout")) - set(combinations("train"))
    assert set(combinations("train", wider=True)) == set(combinations("heldout", wider=True)) - held_out
    pairs = {(t.color, t.shape) for e in draw(kind, 300, wider=True) for t in scene_of(e).objects}
    assert not pairs & held_out
    assert {color for color, _ in pairs} == set(COLORS) and {shape for _, shape in pairs} == set(SHAPES)


def test_absent_objects_may_have_wider_colors_and_shapes() -> None:
    usual = {name for pair in combinations("heldout") for name in pair}
    asked = draw("scene", 300, tasks=["existence"], wider=True)
    answers = Counter(e.answer for e in asked if not usual & set(re.findall(r"[a-z]+", e.question)))
    assert min(answers["yes"], answers["no"]) > 0.25 * answers.total() > 5


def test_relation_is_undecided_between_clear_cases() -> None:
    middle = item("red", "circle", 50, 50)
    assert holds(item("red", "star", 10, 50), "left of", middle) is True
    assert holds(item("red", "star", 40, 50), "left of", middle) is None
    assert holds(item("red", "star", 60, 50), "left of", middle) is False
    assert holds(item("red", "star", 52, 90), "left of", middle) is None
    assert holds(item("red", "star", 50, 90), "below", middle) is True
    assert holds(item("red", "star", 50, 90), "above", middle) is False


def test_neighbor_and_superlatives_need_a_clear_case() -> None:
    left, middle, right = (item("red", "circle", x, 50) for x in (0, 50, 100))
    assert only_one([left, middle, right], "left of", middle) is left
    assert only_one([left, middle, right], "right of", left) is None
    assert extreme([left, middle, right], "rightmost") is right
    assert extreme([left, middle, right], "topmost") is None
    big = item("blue", "circle", 0, 0, side=40)
    assert by_size([left, big], "largest") is big and by_size([left, big], "smallest") is left
    assert by_size([left, middle], "largest") is None
    broad_star = item("blue", "star", 0, 0, side=26)
    assert by_size([left, broad_star], "largest") is None, "broader, but of less area"


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_colors_keep_their_distance_from_the_backdrop(seed: int) -> None:
    rng = random.Random(seed)
    scene = lay_out(rng, (128, 128), combinations("train", wider=True), 4)
    image, painted = paint(rng, scene, noise=0.2)
    pixels = image.load()
    assert pixels is not None
    corner = pixels[1, 1]
    for one in painted.objects:
        if one.shape not in ("ring", "moon", "flag"):  # which have no ink in their middle
            x, y = (round(value) for value in one.center)
            assert math.dist(pixels[x, y], corner) > 40
