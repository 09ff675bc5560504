"""TextVQA, validation split (arXiv 1904.08920), without OCR tokens unless they are requested.

The figure is the soft accuracy of the VQA evaluation over ten annotated answers.
"""

from collections.abc import Sequence

from ..benchmark import Benchmark, LoadOptions
from ..metrics import Profile, check_profile, strip_marks
from ..outcome import Prediction, Row, Scoring, Verdict, failed_verdict
from ..prompts import PromptPart, images_first, short_answer_text
from ..table import parse_answers

NUM_MATCHES_FOR_FULL_SCORE = 3
"""Number of annotators whose answer must be equal to the prediction for the full score."""


class TextVQA(Benchmark):
    """5000 questions with ten answers each."""

    name = "textvqa"
    title = "TextVQA val"
    file = "TextVQA_VAL"
    hub = "lmms-lab/textvqa"
    hub_split = "validation"
    size = 5000
    known_md5 = frozenset({"b233b31f551bbf4056f2f955da3a92cd"})
    metric = "VQA accuracy"
    has_ocr_tokens = True

    def from_hub(self, row: Row) -> Row | None:
        return {
            "index": row["question_id"],
            "question": row["question"],
            "answer": list(row["answers"]),
            "ocr_tokens": list(row["ocr_tokens"]),
        }

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        question = str(row["question"])
        if options.ocr_tokens:
            question += "\nReference OCR token: " + ", ".join(_ocr_tokens(row))
        return images_first(short_answer_text(question, options.prompts), num_images)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        credit = vqa_accuracy(prediction.text, parse_answers(prediction.row["answer"]), profile=scoring.profile)
        answer = normalize_vqa_answer(prediction.text, profile=scoring.profile)
        return Verdict(credit, answer, resolved=bool(prediction.text.strip()))


def _ocr_tokens(row: Row) -> list[str]:
    if row.get("ocr_tokens") is None:
        raise ValueError(
            "OCR tokens are requested but the data have no column ocr_tokens: VLMEvalKit's TSV has none, the hub's "
            "parquet does"
        )
    return parse_answers(row["ocr_tokens"])


def vqa_accuracy(prediction: str, answers: Sequence[str], *, profile: Profile = "paper") -> float:
    """Return the soft accuracy of an answer to a question that several annotators answered, from 0 to 1.

    The score of one annotator is the number of matches among the others over three, at most 1; the accuracy is the
    mean of these. Of ten annotators, k matches give 0, 0.3, 0.6, 0.9 and, from four on, 1. No annotators give 0.
    """
    expected = normalize_vqa_answer(prediction, profile=profile)
    matches = [normalize_vqa_answer(answer, profile=profile) == expected for answer in answers]
    scores = [min(1.0, (sum(matches) - match) / NUM_MATCHES_FOR_FULL_SCORE) for match in matches]
    return sum(scores) / len(scores) if scores else 0.0


def normalize_vqa_answer(text: str, *, profile: Profile = "paper") -> str:
    """Return an answer as it is compared: no marks, lower case, digits for number words, no articles.

    Args:
        text: A predicted or annotated answer.
        profile: ``paper`` removes a period unless a digit follows; ``current`` also keeps it behind a digit.

    Raises:
        ValueError: The profile is unknown.
    """
    check_profile(profile)
    line = text.replace("\n", " ").replace("\t", " ").strip()
    words = (_NUMBER_WORDS.get(word, word) for word in strip_marks(line, profile=profile).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


# Tables of the VQA evaluation, which all evaluation kits share.

_ARTICLES = frozenset({"a", "an", "the"})

_NUMBER_WORDS = {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}

# Entries with a capital never apply, since texts are in lower case by then; they are kept to match the source.
_CONTRACTION_PAIRS = """
aint=ain't arent=aren't cant=can't couldve=could've couldnt=couldn't couldn'tve=couldn't've
couldnt've=couldn't've didnt=didn't doesnt=doesn't dont=don't hadnt=hadn't hadnt've=hadn't've hadn'tve=hadn't've
hasnt=hasn't havent=haven't hed=he'd hed've=he'd've he'dve=he'd've hes=he's howd=how'd howll=how'll hows=how's
Id've=I'd've I'dve=I'd've Im=I'm Ive=I've isnt=isn't itd=it'd itd've=it'd've it'dve=it'd've itll=it'll
let's=let's maam=ma'am mightnt=mightn't mightnt've=mightn't've mightn'tve=mightn't've mightve=might've
mustnt=mustn't mustve=must've neednt=needn't notve=not've oclock=o'clock oughtnt=oughtn't ow's'at='ow's'at
'ows'at='ow's'at 'ow'sat='ow's'at shant=shan't shed've=she'd've she'dve=she'd've she's=she's shouldve=should've
shouldnt=shouldn't shouldnt've=shouldn't've shouldn'tve=shouldn't've somebody'd=somebodyd
somebodyd've=somebody'd've somebody'dve=somebody'd've somebodyll=somebody'll somebodys=somebody's
someoned=someone'd someoned've=someone'd've someone'dve=someone'd've someonell=someone'll someones=someone's
somethingd=something'd somethingd've=something'd've something'dve=something'd've somethingll=something'll
thats=that's thered=there'd thered've=there'd've there'dve=there'd've therere=there're theres=there's
theyd=they'd theyd've=they'd've they'dve=they'd've theyll=they'll theyre=they're theyve=they've twas='twas
wasnt=wasn't wed've=we'd've we'dve=we'd've weve=we've werent=weren't whatll=what'll whatre=what're whats=what's
whatve=what've whens=when's whered=where'd wheres=where's whereve=where've whod=who'd whod've=who'd've
who'dve=who'd've wholl=who'll whos=who's whove=who've whyll=why'll whyre=why're whys=why's wont=won't
wouldve=would've wouldnt=wouldn't wouldnt've=wouldn't've wouldn'tve=wouldn't've yall=y'all yall'll=y'all'll
y'allll=y'all'll yall'd've=y'all'd've y'alld've=y'all'd've y'all'dve=y'all'd've youd=you'd youd've=you'd've
you'dve=you'd've youll=you'll youre=you're youve=you've
"""

_CONTRACTIONS = dict(pair.split("=") for pair in _CONTRACTION_PAIRS.split())
"""Contractions without an apostrophe, or with one in the wrong place -> correct spelling."""
