"""Multiple choice: the prompt, how a letter is read from an answer, and the score.

SEED-Bench, MMMU and RealWorldQA use it directly, MMBench in rotations of the options.
"""

import re
from collections.abc import Mapping, Sequence

from .benchmark import Benchmark, LoadOptions
from .metrics import Profile, check_profile
from .outcome import Prediction, Row, Scoring, Verdict
from .prompts import SINGLE_WORD, PromptPart, PromptProfile, images_first

REFUSED = "Z"
"""Letter of an answer that declines to choose."""

OPTION_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

CHOOSE = "Answer with the option's letter from the given choices directly."
ANSWER_DIRECTLY = "Answer the question directly."
_CHOOSE_IN_CHINESE = "请直接回答选项字母。"
_ANSWER_IN_CHINESE = "请直接回答问题。"
_CJK_IDEOGRAPH = re.compile(r"[\u4e00-\u9fff]")

_NO_ANSWER = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_TOKENS = 4
_ANSWER_IS = re.compile(r"answer is\s*\**\s*([A-D])", re.IGNORECASE)


class ChoiceBenchmark(Benchmark):
    """A benchmark whose answers are letters; the figure is the share of correct ones."""

    columns: tuple[str, ...] = ("question", "answer", "A", "B")
    judge = "choice"

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(choice_text(row, options.prompts), num_images)

    def choices(self, row: Row) -> dict[str, str]:
        """Return the options that an answer may name, by letter."""
        return options_of(row)

    def correct_letter(self, row: Row) -> str:
        """Return the letter of the correct option."""
        return str(row["answer"])

    def extract(self, prediction: Prediction, scoring: Scoring) -> str | None:
        """Return the letter that an answer or else its judgment names; None after an error."""
        if prediction.error is not None:
            return None
        found = extract_choice(prediction.text, self.choices(prediction.row), profile=scoring.profile)
        return found or (str(prediction.judgment) if prediction.judgment is not None else None)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        letter = self.extract(prediction, scoring)
        return Verdict(float(letter == self.correct_letter(prediction.row)), letter, letter is not None)

    def categories(self, row: Row) -> Sequence[str]:
        return [row["category"]] if row.get("category") is not None else []


def options_of(row: Mapping[str, object]) -> dict[str, str]:
    """Return the options of a row, by letter."""
    return {letter: str(row[letter]) for letter in OPTION_LETTERS if row.get(letter) is not None}


def question_with_options(row: Mapping[str, object], question: str) -> str:
    """Return a question followed by the options of its row, one a line."""
    return question + "".join(f"\n{letter}. {option}" for letter, option in options_of(row).items())


def choice_text(row: Row, profile: PromptProfile) -> str:
    """Return a multiple-choice question with its hint, options and instruction; white space is kept."""
    hint = f"{row['hint']}\n" if row.get("hint") is not None else ""
    text = hint + question_with_options(row, str(row["question"]))
    return f"{text}\n{_instruction(text, bool(options_of(row)), profile)}"


def _instruction(text: str, has_options: bool, profile: PromptProfile) -> str:
    if profile == "llava":
        return CHOOSE if has_options else SINGLE_WORD
    if _CJK_IDEOGRAPH.search(text):
        return _CHOOSE_IN_CHINESE if has_options else _ANSWER_IN_CHINESE
    return CHOOSE if has_options else ANSWER_DIRECTLY


def extract_choice(prediction: str, choices: Mapping[str, str], *, profile: Profile = "paper") -> str | None:
    """Return the letter that an answer chooses, by the letter or else by the text of one option.

    Args:
        prediction: The model's answer.
        choices: Text of each option by its capital letter.
        profile: ``current`` accepts a letter only among the last four tokens, also reads "answer is b", and does not
            look for option texts in an answer more than twice as long as all of them.

    Returns:
        A letter of ``choices`` (``current`` may also find another of A to D behind "answer is"), "Z" for a refusal,
        or None if the answer names no single option.

    Raises:
        ValueError: The profile is unknown.
    """
    check_profile(profile)
    return _by_letter(prediction, choices, profile) or _by_text(prediction, choices, profile)


def _by_letter(prediction: str, choices: Mapping[str, str], profile: Profile) -> str | None:
    if _NO_ANSWER in prediction:
        return None
    if any(refusal in prediction for refusal in _REFUSALS):
        return REFUSED
    tokens = prediction.translate(_SEPARATORS).split()
    named = [letter for letter in choices if letter in tokens]
    if len(named) == 1 and (profile == "paper" or _is_among_last(named[0], tokens)):
        return named[0]
    if not named and REFUSED in tokens:
        return REFUSED
    found = _ANSWER_IS.search(prediction) if profile == "current" else None
    return found[1].upper() if found else None


def _is_among_last(letter: str, tokens: Sequence[str]) -> bool:
    return tokens.index(letter) >= len(tokens) - _LAST_TOKENS


def _by_text(prediction: str, choices: Mapping[str, str], profile: Profile) -> str | None:
    answer = prediction.lower()
    if profile == "current" and len(answer) > 2 * sum(len(str(text)) for text in choices.values()):
        return None
    named = [letter for letter, text in choices.items() if str(text).lower() in answer]
    return named[0] if len(named) == 1 else None
