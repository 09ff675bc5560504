"""The language of code and docs: one word for each concept, sentences that make sense alone, American spelling."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

WORDS = {
    r"pictur\w*": "image",
    r"\w*colour\w*": "color",
    r"\w*behaviour\w*": "behavior",
    r"\w*neighbour\w*": "neighbor",
    r"\w*favour\w*": "favor",
    r"centre\w*": "center",
    r"licence\w*": "license",
    r"catalogue\w*": "catalog",
    r"judgement\w*": "judgment",
    r"learnt|spelt|misspelt": "learned, spelled",
    r"\w*(?:labell|cancell|modell|travell)(?:ed|ing)": "labeled, canceled, modeled",
    r"\w*(?:normal|optim|token|quant|initial|summar|recogn|organ|serial|general|minim|maxim|special|visual|penal|util|"
    r"random|customi|synchron|memor|equal|real|local|capital)is(?:e|es|ed|er|ers|ing|ation|ations)": "-ize",
    r"analys(?:e|ed|es|ing)": "analyze",
}
"""Spellings and words that the source and the docs do not use, with what they use."""

PERSONS = r"nobody|somebody|anybody|everybody|whoever|whomever|strangers?"
"""Persons that stand for an absent value or an unknown client; a message names the value instead."""

RIDDLES = (
    r"come again|not to be had|have not met|in whatever company|by heart|as (?:it is )?told|a mile long|wish(?:es|ed)?"
)
"""Idioms that a reader whose first language is not English has to guess."""

FRAGMENT = re.compile(
    r"(?:Of|That|As|Whose|Whom|Who|Which|Where|What|Than|Be|Words\.|Beside|Besides)\b(?! (?:is|are|does|do) )"
)
"""How a docstring begins that makes no sense without the name it belongs to."""

GENERATED = re.compile(r"assets/nano/(?!README)|/fonts/|^LICENSE|held_out\.json|^tests/test_language\.py$")
VOCABULARY = re.compile(r"^src/convllava/synthetic/(?:words|names|scene_questions|lines|receipts|correspondence)\.py$")
"""Words that are drawn and asked as data; the bundled model was trained on them."""

CONTRACTIONS = "notve=not've"
"""Part of the table of contractions of the VQA evaluation, which has pronouns as data."""

FOLDERS = ("src", "tests", "benchmarks", "recipes", "examples", "docs")
SUFFIXES = {".py", ".md", ".yaml", ".js", ".css", ".html", ".sh"}
FOUND = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
TEXT = [*sorted(path.relative_to(ROOT).as_posix() for path in FOUND), *("README.md", "Makefile", "pyproject.toml")]
NOT_OURS = re.compile(r"CancelledError|vqa_normalise|in the pic|the picture show")
"""Lines with a class of asyncio, a file of the reference vectors, or a question that nano was trained on."""

TEXT = [name for name in TEXT if not GENERATED.search(name)]
SOURCE = [name for name in TEXT if name.startswith("src/") and name.endswith(".py")]
DOCS = [name for name in TEXT if name.endswith(".md")]


def words_of(name: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of a file; of drawn vocabulary only what is not a string."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not VOCABULARY.search(name):
        yield from enumerate(text.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.COMMENT):
            yield token.start[0], token.string


def parts_of(text: str) -> str:
    """Split snake_case and camelCase into words, so that a pattern finds them at word boundaries."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text.replace("_", " "))


@pytest.mark.parametrize("name", TEXT)
def test_words(name: str) -> None:
    found = []
    for number, line in words_of(name):
        if NOT_OURS.search(line):
            continue
        for pattern, instead in WORDS.items():
            for match in re.finditer(rf"\b(?:{pattern})\b", parts_of(line), re.IGNORECASE):
                found.append(f"line {number}: {match[0]!r}: write {instead}")
    assert found == []


def docs_in(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of every docstring and of every string below an assignment."""
    body = getattr(node, "body", [])
    for statement in body if isinstance(body, list) else []:
        match statement:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                yield statement.lineno, text


def entries_of(doc: str) -> Iterator[str]:
    """Yield the text after each ``name:`` in the sections of a docstring."""
    for match in re.finditer(r"^\s+\*{0,2}[\w.*, ]{1,40}: (\S.*)$", doc, re.MULTILINE):
        yield match[1]


def prose_of(tree: ast.AST, source: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of every string and comment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@pytest.mark.parametrize("name", SOURCE)
def test_docstrings_make_sense_alone(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        for number, doc in docs_in(node):
            for text in (doc.strip(), *entries_of(doc)):
                if FRAGMENT.match(text):
                    found.append(f"line {number}: {text.splitlines()[0]!r} is a fragment")
    assert found == []


@pytest.mark.parametrize("name", [name for name in SOURCE if not VOCABULARY.search(name)])
def test_prose_has_no_persons_and_no_riddles(name: str) -> None:
    source = (ROOT / name).read_text(encoding="utf-8")
    found = []
    for number, text in prose_of(ast.parse(source), source):
        if CONTRACTIONS in text:
            continue
        for match in re.finditer(rf"\b(?:{PERSONS}|{RIDDLES})\b", text, re.IGNORECASE):
            found.append(f"line {number}: {match[0]!r}")
    assert found == []


@pytest.mark.parametrize("name", DOCS)
def test_docs_have_short_lines_and_no_persons(name: str) -> None:
    found, in_code = [], False
    for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        if in_code or line.lstrip().startswith("|"):
            continue
        if len(line) > 100 and not re.search(r"\]\(\S{60,}\)|https?://\S{60,}", line):
            found.append(f"line {number}: {len(line)} characters")
        found += [f"line {number}: {match[0]!r}" for match in re.finditer(rf"\b(?:{PERSONS})\b", line, re.IGNORECASE)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("Of an image, that a program sums up.", True),
        ("What the user asked for.", True),
        ("As the authors do.", True),
        ("Return the image.", False),
        ("Officially supported layouts.", False),
        ("Maximum queued requests; further ones get HTTP 429.", False),
    ],
)
def test_fragments_are_found(text: str, bad: bool) -> None:
    assert bool(FRAGMENT.match(text)) == bad


@pytest.mark.parametrize("text", ["pictures", "update_has_pictures", "FilePicture", "colour", "tokenised", "catalogue"])
def test_words_are_found(text: str) -> None:
    assert any(re.search(rf"\b(?:{pattern})\b", parts_of(text), re.IGNORECASE) for pattern in WORDS)
