"""The dialogue about a page: its transcript, then questions in many wordings."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from ...geometry import box_to_square, format_box
from ..example import Asked
from ..words import any_word
from . import values
from .facts import LOCATE, NOT_SHOWN, PRICE, SAYS, TOPICS, Fact, vary
from .page import Field, Page
from .parts import ORDINALS
from .warp import Warp

_TRANSCRIBE = (
    "Transcribe the text.",
    "Transcribe all text in the image.",
    "Transcribe the {}.",
    "Read all the text.",
    "Read the text in the image.",
    "Read the {}.",
    "What text is in the image?",
    "Extract all text from the image.",
    "Write down everything that is written.",
    "Write out the text of the image line by line.",
    "Transcribe the image, line by line.",
    "OCR this image.",
    "OCR:",
    "Give the full text of the {}.",
    "What is written in the image?",
    "Copy the text.",
    "Please transcribe this {}.",
    "Convert the image to text.",
)

_BRIEF = (
    "Answer briefly.",
    "Answer with the text only.",
    "Answer the question using a single word or phrase.",
    "Answer with a single word or phrase.",
    "Give only the answer.",
    "Be brief.",
)

_LINE = (
    "Read the {} line.",
    "What does the {} line say?",
    "What is written in the {} line?",
    "What is the {} line?",
    "Transcribe the {} line.",
    "Read only the {} line.",
)
_NUMBERED = ("Read line {}.", "What does line {} say?", "Transcribe line {}.", "What is in line {}?")
_HAS_WORD = (
    'Is the word "{}" in the image?',
    'Does the image contain the word "{}"?',
    'Does the text say "{}"?',
    'Can you see the word "{}"?',
)
_HAS_TOPIC = ("Does the {} show {}?", "Is {} on the {}?")
_COUNT_LINES = ("How many lines of text are there?", "How many lines are there?", "How many lines does the text have?")
_WHERE_TEXT = (
    'Where is the text "{}"? Give its bounding box.',
    'Locate "{}".',
    'Give the box of "{}".',
    'Where is "{}"?',
)
_YES_NO = ("Answer yes or no.", "Answer yes or no.", "Yes or no?", "")

_COSTS = ("Which item costs {}?", "What costs {}?", "Which article is priced at {}?", "What can you buy for {}?")

_ABSENT = (
    *("total", "date", "due", "phone", "email", "tax", "time", "site", "subtotal", "change", "discount", "customer"),
    *("number", "street", "hours", "seat", "shop", "person", "sender"),
)
"""Topics that questions ask for where a page does not show them."""

_SHORT_NAMES = frozenset(("sign", "poster", "note", "label", "badge", "price tag", "tag", "image", "name badge"))
"""Pages whose complete text answers "What does it say?"."""

_LONGEST_SAYING = 120


class Talk(NamedTuple):
    """The subject of a dialogue.

    Attributes:
        rng: The source of randomness.
        split: Split of words that questions make up.
        page: The page.
        warp: Its way to the image.
    """

    rng: random.Random
    split: str
    page: Page
    warp: Warp

    def box(self, box: tuple[float, float, float, float]) -> str:
        """Write a box of the page as a box on the image's padded square."""
        height, width = self.warp.target
        return format_box(box_to_square(self.warp.box(box), width, height))


def transcript(page: Page) -> str:
    """Return all lines in reading order."""
    return "\n".join(line.text for line in page.lines)


def ask_transcript(talk: Talk) -> Asked | None:
    """Ask for every line."""
    return talk.rng.choice(_TRANSCRIBE).format(talk.page.name), transcript(talk.page)


def ask_field(talk: Talk) -> Asked | None:
    """Ask for a fact of the page."""
    rng, page = talk.rng, talk.page
    if rng.random() < 0.12 and page.facts:
        fact, answer = rng.choice(page.facts)
        return fact.question(rng), answer
    text = " ".join(line.text for line in page.lines)
    if len(text) <= _LONGEST_SAYING and page.name in _SHORT_NAMES and (rng.random() < 0.3 or not page.fields):
        return rng.choice(SAYS.questions).format(page.name), text
    field = _clear_field(talk)
    if field is None:
        return ask_line(talk)
    if field.fact.topic is PRICE and rng.random() < 0.1:
        same = [other for other in page.fields if other.text == field.text]
        if len(same) == 1 and field.fact.subject in text:
            return rng.choice(_COSTS).format(field.text), field.fact.subject
    question = field.fact.question(rng)
    if rng.random() < 0.15:
        question = f"{question} {rng.choice(_BRIEF)}"
    return question, field.text


def ask_line(talk: Talk) -> Asked | None:
    """Ask for a line by its number, if the lines are clearly below each other."""
    rng, lines = talk.rng, talk.page.lines
    if not _lines_are_clear(talk.page):
        return None
    if rng.random() < 0.1:
        return rng.choice(_COUNT_LINES), str(len(lines))
    if rng.random() < 0.2:
        return rng.choice(_LINE).format(rng.choice(("last", "last", "bottom"))), lines[-1].text
    index = rng.randrange(min(len(lines), len(ORDINALS)))
    if rng.random() < 0.25:
        return rng.choice(_NUMBERED).format(index + 1), lines[index].text
    return rng.choice(_LINE).format("top" if index == 0 and rng.random() < 0.2 else ORDINALS[index]), lines[index].text


def ask_box(talk: Talk) -> Asked | None:
    """Ask for the box of a fact or of a line."""
    rng, page = talk.rng, talk.page
    field = _clear_field(talk)
    if field is not None and rng.random() < 0.7:
        return rng.choice(LOCATE).format(field.fact.phrase), talk.box(field.box)
    line = rng.choice(page.lines)
    if len(line.text) > 30 or '"' in line.text or sum(other.text == line.text for other in page.lines) > 1:
        return None
    return rng.choice(_WHERE_TEXT).format(line.text), talk.box(line.box)


def ask_absent(talk: Talk) -> Asked | None:
    """Ask for something that the page does not show."""
    rng, page = talk.rng, talk.page
    if PRICE.name in page.topics and rng.random() < 0.4:
        name = values.article(rng, talk.split)
        if name.split()[0].lower() in transcript(page).lower():
            return None
        return Fact(PRICE, name).question(rng), NOT_SHOWN
    name = rng.choice(_ABSENT)
    if not _shows_nothing_of(page, name):
        return None
    return Fact(TOPICS[name], page.name).question(rng), NOT_SHOWN


def ask_check(talk: Talk) -> Asked | None:
    """Ask whether a word is in the image; both answers are equally frequent."""
    rng, page = talk.rng, talk.page
    ending = rng.choice(_YES_NO)
    yes = rng.random() < 0.5
    words = [word.strip(".,;:!?()'\"") for line in page.lines for word in line.text.split()]
    words = [word for word in words if word.isalpha() and len(word) > 2]
    if yes and not words:
        return None
    word = rng.choice(words) if yes else any_word(rng, talk.split)
    if not yes and word.lower() in transcript(page).lower():
        return None
    return f"{rng.choice(_HAS_WORD).format(word)} {ending}".strip(), "yes" if yes else "no"


PAGE_TASKS: dict[str, Callable[[Talk], Asked | None]] = {
    "transcribe": ask_transcript,
    "field": ask_field,
    "line": ask_line,
    "locate": ask_box,
    "absent": ask_absent,
    "check": ask_check,
}
"""Every task by its name in the option ``tasks``."""

TASK_WEIGHTS = {"field": 12, "line": 3, "locate": 2, "absent": 2, "check": 2}
"""Relative frequencies of the questions of a dialogue."""


def ask(talk: Talk, tasks: Sequence[str], questions: int, first: bool) -> list[Asked]:
    """Return up to ``questions`` different questions; with ``first`` the transcript comes before them."""
    rng = talk.rng
    found: dict[str, str] = {}
    if first:
        question, answer = ask_transcript(talk) or ("", "")
        found[question] = answer
    weights = [TASK_WEIGHTS.get(task, 1) for task in tasks]
    wanted = len(found) + questions
    for _ in range(4 * questions):
        if len(found) >= wanted or not tasks:
            break
        asked = PAGE_TASKS[rng.choices(tasks, weights)[0]](talk)
        if asked is None or asked[0] in found:
            continue
        # One fact in many wordings teaches less than many facts.
        if list(found.values()).count(asked[1]) < (3 if asked[1] in ("yes", "no") else 1):
            found[asked[0]] = asked[1]
    return [(vary(rng, question), answer) for question, answer in found.items()]


def _clear_field(talk: Talk) -> Field | None:
    """Draw a field whose question has one answer."""
    page, rng = talk.page, talk.rng
    for _ in range(4 if page.fields else 0):
        field = rng.choice(page.fields)
        same = {other.text for other in page.fields if other.fact == field.fact}
        if len(same) == 1:
            return field
    return None


def _lines_are_clear(page: Page) -> bool:
    lines = page.lines
    return all(after.box[1] > (before.box[1] + before.box[3]) / 2 for before, after in pairwise(lines))


def _shows_nothing_of(page: Page, name: str) -> bool:
    """Return whether no fact of the topic, and no label that names it, is on the page."""
    words = transcript(page).lower()
    needles = _NEEDLES.get(name, (name,))
    return name not in page.topics and not any(needle in words for needle in needles)


_NEEDLES: dict[str, tuple[str, ...]] = {
    "total": ("total", "amount", "due", "sum", "pay", "balance", "$", "£", "€", "price"),
    "date": (
        "date",
        "day",
        "/",
        "-",
        "born",
        "when",
        "jan",
        "feb",
        "mar",
        "apr",
        "may",
        "jun",
        "jul",
        "aug",
        "sep",
        "oct",
    ),
    "due": ("due", "pay"),
    "phone": ("phone", "tel", "mobile", "call", "555", "("),
    "email": ("mail", "@"),
    "tax": ("tax", "vat", "gst"),
    "time": (":", "time", "am", "pm", "hour", "open"),
    "site": ("www", "site", "web"),
    "subtotal": ("sub", "net"),
    "change": ("change",),
    "discount": ("discount", "rebate", "%"),
    "customer": ("customer", "bill", "to", "name", "client"),
    "number": ("no", "number", "#", "id", "code"),
    "street": ("street", "address", "where", "place", "from", "to"),
    "hours": ("open", "hour", "am", "pm", ":"),
    "seat": ("seat",),
    "shop": ("shop", "store", "ltd", "inc", "company"),
    "person": ("name", "mr", "ms", "dr"),
    "sender": ("from", "sender", "yours", "regards", "by"),
}
"""Texts that might answer a question for a topic: where one is on the page, absence is not asked."""
