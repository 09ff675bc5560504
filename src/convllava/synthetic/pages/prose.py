"""Sentences and phrases with the shape of ordinary English."""

import random

from ..words import any_word, common_words
from . import values
from .vocabulary import vocabulary

# Words of grammar are in both splits, as labels are.
_DETERMINERS = ("the", "the", "the", "a", "this", "every", "our", "their", "his", "her", "no", "my", "each", "some")
_LINKS = ("and", "or", "but", "of", "in", "on", "with", "for", "to", "from", "at", "by", "as", "near", "under", "after")
_VERBS = ("is", "was", "has", "will", "can", "are", "were", "had", "must", "may", "should", "did", "does", "would")
_STARTS = ("The", "The", "A", "In", "When", "We", "It", "They", "There", "After", "If", "You", "He", "She", "Please")
_ENDS = (".", ".", ".", ".", ".", "!", "?", ";", ":")


def word(rng: random.Random, split: str) -> str:
    """Write a word: mostly listed, at times invented, a number, an amount or capitals."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(common_words(split))
    if kind < 0.72:
        return rng.choice(vocabulary(split))
    if kind < 0.82:
        return any_word(rng, split)
    if kind < 0.9:
        return any_word(rng, split).capitalize()
    if kind < 0.93:
        return any_word(rng, split).upper()
    if kind < 0.97:
        return str(rng.randrange(10 ** rng.randint(1, 4)))
    writer = rng.choice((values.amount, values.clock, values.percent, values.code, values.decimal, values.phone))
    return writer(rng, split)


def sentence(rng: random.Random, split: str) -> str:
    """Write a sentence of four to fourteen words."""
    count = rng.randint(4, 14)
    words = [rng.choice(_STARTS)]
    for _ in range(count):
        kind = rng.random()
        if kind < 0.22:
            words.append(rng.choice(_DETERMINERS))
        elif kind < 0.38:
            words.append(rng.choice(_LINKS))
        elif kind < 0.48:
            words.append(rng.choice(_VERBS))
        words.append(word(rng, split))
        if rng.random() < 0.07:
            words[-1] += rng.choice((",", ",", ",", " -", ";", ":"))
        elif rng.random() < 0.02:
            words[-1] = rng.choice(('"{}"', "({})", "'{}'")).format(words[-1])
    return " ".join(words).rstrip(",;:- ") + rng.choice(_ENDS)


def sentences(rng: random.Random, split: str, characters: int) -> str:
    """Write sentences of about so many characters together."""
    text = sentence(rng, split)
    while len(text) < characters:
        text += f" {sentence(rng, split)}"
    return text[: max(12, characters)].rstrip()


def phrase(rng: random.Random, split: str) -> str:
    """Write one to five words without an end, such as an entry of a list."""
    words = [word(rng, split) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5)))]
    if len(words) > 2 and rng.random() < 0.5:
        words[1] = rng.choice(_LINKS + _DETERMINERS)
    text = " ".join(words)
    return text.capitalize() if rng.random() < 0.5 else text


def saying(rng: random.Random, split: str) -> str:
    """Write words of a sign or a poster: one to four, in one case."""
    words = [
        rng.choice(vocabulary(split)) if rng.random() < 0.7 else any_word(rng, split) for _ in range(rng.randint(1, 4))
    ]
    if len(words) > 2 and rng.random() < 0.4:
        words[1] = rng.choice(_LINKS)
    text = " ".join(words)
    return rng.choice((text.upper(), text.upper(), text.title(), text.capitalize(), text))
