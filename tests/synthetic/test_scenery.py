"""Scenes of any size: what is asked is what is painted."""

import re
from typing import Any

import numpy as np
import pytest

from convllava.geometry import box_from_square, box_iou, find_boxes
from convllava.synthetic import POSITION_END, Example, SyntheticDataset
from convllava.synthetic.objects import Scene
from convllava.synthetic.pages.facts import NOT_SHOWN
from convllava.synthetic.shapes.arrangement import COLORS, SHAPES, pairs_of
from convllava.synthetic.shapes.talk import SCENE_TASKS, describe


def examples(kind: str, count: int, seed: int = 3, **options: Any) -> list[Example]:
    dataset = SyntheticDataset(kind, count=count, seed=seed, **options)
    return [dataset.example(index) for index in range(count)]


def scene_of(example: Example) -> Scene:
    scene = example.facts["scene"]
    assert isinstance(scene, Scene)
    return scene


def asked(drawn: list[Example]) -> list[tuple[Scene, str, str]]:
    return [(scene_of(e), *pair) for e in drawn for pair in ((e.question, e.answer), *e.more)]


def test_shapes_are_apart_inside_and_of_many_sizes() -> None:
    sides = []
    for example in examples("scenes", 150):
        scene = scene_of(example)
        height, width = scene.size
        for item in scene.objects:
            x0, y0, x1, y1 = item.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert all(box_iou(item.box, other.box) == 0 for other in scene.objects if other is not item)
            sides.append(item.side / min(height, width))
    assert min(sides) < 0.1 and max(sides) > 0.7


def test_boxes_are_tight_around_the_painted_pixels() -> None:
    for example in examples("scenes", 40, noise=0.0, most=1):
        (item,) = scene_of(example).objects
        pixels = np.asarray(example.image.convert("RGB"), dtype=int)
        distance = np.abs(pixels - pixels[0, 0]).sum(axis=2)
        rows, columns = np.nonzero(distance > 40)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert max(abs(a - b) for a, b in zip(box, item.box, strict=True)) <= 3, item


def test_asked_boxes_are_those_of_objects() -> None:
    found = 0
    for scene, question, answer in asked(examples("boxes", 60)):
        height, width = scene.size
        for box in find_boxes(answer):
            found += 1
            pixels = box_from_square(box, width, height)
            best = max(box_iou(pixels, item.box) for item in scene.objects)
            assert best > 0.6, question
    assert found > 150


def test_existence_is_balanced_and_right() -> None:
    answers = []
    for scene, question, answer in asked(examples("scenes", 120, tasks=["existence"], questions=3)):
        answers.append(answer)
        match = re.search(r"\ban? (\w+) (\w+)", question)
        if match and match[1] in COLORS and match[2] in SHAPES:
            present = any(item.name == f"{match[1]} {match[2]}" for item in scene.objects)
            assert answer == ("yes" if present else "no"), question
    assert 0.3 < answers.count("yes") / len(answers) < 0.7


def test_counts_are_right() -> None:
    for scene, question, answer in asked(examples("scenes", 60, tasks=["count"])):
        match = re.search(r"\b(?:(\w+) )?(\w+?)(?: (?:are|do|does|in)\b|[.?])", question.replace("How many ", ""))
        plural = {value: key for key, value in SHAPES.items()}
        if match and match[2] in plural and match[1] in COLORS:
            count = sum(item.name == f"{match[1]} {plural[match[2]]}" for item in scene.objects)
            assert answer == str(count), question


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_each_task_is_asked(task: str) -> None:
    drawn = examples("scenes", 6, tasks=[task])
    assert all(answer for _, _, answer in asked(drawn))


def test_captions_name_all_objects() -> None:
    for scene, _, answer in asked(examples("scenes", 20, tasks=["caption"], questions=1)):
        assert answer == describe(scene)
        assert all(item.color in answer for item in scene.objects)


def test_missing_shapes_are_not_shown() -> None:
    for scene, question, answer in asked(examples("scenes", 150, tasks=["color"])):
        if answer == NOT_SHOWN:
            assert not any(re.search(rf"\b{item.shape}\b", question) for item in scene.objects), question


def test_words_are_american() -> None:
    text = " ".join(f"{question} {answer}" for _, question, answer in asked(examples("scenes", 60)))
    assert " gray " in text and " color " in text
    assert not re.search("our is |ey circle|pictu", text)


def test_training_lacks_pairs_that_held_out_scenes_have() -> None:
    for plain in (True, False):
        train, heldout = set(pairs_of("train", plain)), set(pairs_of("heldout", plain))
        assert train < heldout
        assert {color for color, _ in train} == {color for color, _ in heldout}
        assert 0.03 < 1 - len(train) / len(heldout) < 0.2


def test_positions_name_the_objects() -> None:
    for example in examples("scenes", 10, sizes=[[192, 256]], stride=64):
        texts = example.answer.split(POSITION_END)
        assert len(texts) == 12
        for item in scene_of(example).objects:
            assert any(item.name in text for text in texts)
