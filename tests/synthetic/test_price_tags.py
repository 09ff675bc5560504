"""Price tags: answers that are printed, in a notation of their own, and splits that share nothing."""

import random

import pytest

from convllava.synthetic import SyntheticDataset
from convllava.synthetic.price_tags import PriceTagKind, draw_tag


def _asked(split: str, count: int = 60) -> list[tuple[str, str]]:
    tags = SyntheticDataset("price_tag", count=count, seed=3, split=split, questions=4)
    examples = [tags.example(index) for index in range(count)]
    return [asked for one in examples for asked in ((one.question, one.answer), *one.more)]


def test_each_field_is_asked_once_and_prices_have_a_notation_that_is_not_printed() -> None:
    example = SyntheticDataset("price_tag", count=1, seed=1, questions=4).example(0)
    tag = example.facts["tag"]
    assert {example.answer, *(answer for _, answer in example.more)} == {
        tag.article,
        f"EUR {tag.euros}.{tag.cents:02}",
        tag.pack,
        tag.number,
    }


def test_splits_share_neither_questions_nor_values() -> None:
    train, held_out = _asked("train"), _asked("heldout")
    assert not {question for question, _ in train} & {question for question, _ in held_out}
    values = [{answer for _, answer in asked if not answer[-1].isalpha()} for asked in (train, held_out)]
    assert not values[0] & values[1] and min(map(len, values)) > 100


def test_tags_do_not_change() -> None:
    """Figures of docs and README hold for these tags."""
    assert draw_tag(random.Random(0), "train").answers() == {
        "article": "Sandwich",
        "price": "EUR 26.66",
        "pack": "760 ml",
        "number": "46941",
    }


def test_questions_are_counted() -> None:
    with pytest.raises(ValueError, match="questions must be a whole number from 1 to 4, got 5"):
        PriceTagKind("train", questions=5)
