"""Properties of every kind of synthetic data: determinism, splits, sizes, options."""

import hashlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from convllava.data.samples import Sample
from convllava.synthetic import KINDS, SyntheticDataset
from convllava.synthetic.fonts import (
    CHARACTERS,
    FACES,
    FONT_DIRECTORY,
    Face,
    bold_sibling,
    faces,
    load_font,
)
from convllava.synthetic.glyphs import draw_text, ink_box, text_width
from convllava.synthetic.names import goods
from convllava.synthetic.seeding import SPLITS, split_of, stable_hash, stream
from convllava.synthetic.text import MONTHS, any_text
from convllava.synthetic.words import COMMON_WORDS, common_words, invented_word

ALL_KINDS = tuple(KINDS)


def text_of(sample: Sample, turn: int) -> str:
    return "".join(part["text"] for part in sample.messages[turn]["content"] if part["type"] == "text")


def image_of(sample: Sample) -> Image.Image:
    (image,) = sample.images
    assert isinstance(image, Image.Image)
    return image


def digest(kind: str, split: str, indices: range) -> str:
    """Return a digest of pixels, questions and answers of some samples."""
    dataset = SyntheticDataset(kind, count=1000, seed=3, split=split)
    total = hashlib.sha256()
    for index in indices:
        sample = dataset[index]
        total.update(image_of(sample).tobytes() + repr(sample.messages).encode())
    return total.hexdigest()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_sample_has_one_image_and_answered_questions(kind: str) -> None:
    sample = SyntheticDataset(kind, count=20, seed=5, split="heldout")[17]
    assert sample.sample_id == f"synthetic/{kind}/heldout/5/17"
    assert image_of(sample).mode == "RGB"
    turns = len(sample.messages) // 2
    assert [message["role"] for message in sample.messages] == ["user", "assistant"] * turns
    assert turns == 1 or kind in ("blocks", "documents", "pages", "scenes", "boxes")
    assert [part["type"] for part in sample.messages[0]["content"]] == ["image", "text"]
    assert text_of(sample, 0) and text_of(sample, 1)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_sample_depends_on_its_index_alone(kind: str) -> None:
    one, other = (SyntheticDataset(kind, count=50, seed=1) for _ in range(2))
    one[7], one[30]
    assert one[12].messages == other[12].messages
    assert image_of(one[12]).tobytes() == image_of(other[12]).tobytes()
    assert one[-38].sample_id == one[12].sample_id


def test_fresh_process_draws_the_same() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_dataset import ALL_KINDS, digest\n"
        "print(*(digest(kind, split, range(4)) for kind in ALL_KINDS for split in ('train', 'heldout')))"
    )
    command = [sys.executable, "-c", code, __file__.rpartition("/")[0]]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed == [digest(kind, split, range(4)) for kind in ALL_KINDS for split in SPLITS]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_seeds_splits_and_indices_differ(kind: str) -> None:
    images = {
        image_of(SyntheticDataset(kind, count=9, seed=seed, split=split)[index]).tobytes()
        for seed in (0, 1)
        for split in SPLITS
        for index in (0, 8)
    }
    assert len(images) == 8


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_image_sizes_equal_those_of_the_images(kind: str) -> None:
    sizes = [[128, 256], [160, 160], [320, 192]]
    options: dict[str, Any] = {"font_size": [10, 20]} if kind == "document" else {}
    dataset = SyntheticDataset(kind, count=30, sizes=sizes, **options)
    sizes = [dataset.image_sizes(index) for index in range(30)]
    drawn = [[image_of(dataset[index]).size[::-1]] for index in range(30)]
    assert sizes == drawn
    assert {size for (size,) in sizes} == {(128, 256), (160, 160), (320, 192)}


def test_image_sizes_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = SyntheticDataset("document", count=5)
    monkeypatch.setattr(Image, "new", lambda *arguments: pytest.fail("an image was made"))
    assert dataset.image_sizes(4)


def test_words_belong_to_one_split() -> None:
    assert not set(common_words("train")) & set(common_words("heldout"))
    assert set(common_words("train")) | set(common_words("heldout")) == set(COMMON_WORDS)
    assert len(COMMON_WORDS) == len(set(COMMON_WORDS)) > 600
    assert len(common_words("heldout")) > 100 and len(goods("heldout")) > 10
    assert not set(goods("train")) & set(goods("heldout"))


def test_invented_words_belong_to_one_split() -> None:
    rng = stream("test")
    for split in SPLITS:
        words = {invented_word(rng, split) for _ in range(200)}
        assert {split_of(word.upper()) for word in words} == {split}


@pytest.mark.parametrize("split", SPLITS)
def test_written_words_belong_to_the_split(split: str) -> None:
    """Except for dates, codes, units and ends of addresses, every word of a text belongs to its split."""
    fixed = re.compile(r"\d|[A-Z]{2,}|\bwww|\.(com|org|net|co|uk)\b")
    rng = stream("test")
    pieces = [piece for _ in range(2000) for piece in any_text(rng, split).split()]
    words = {word for piece in pieces if not fixed.search(piece) for word in re.findall("[A-Za-z]{3,}", piece)}
    words -= {name[:length] for name in MONTHS for length in (3, 9)}
    assert len(words) > 500
    assert {split_of(word) for word in words} == {split}


def test_every_character_is_written() -> None:
    rng = stream("test")
    written = "".join(any_text(rng, "train") for _ in range(6000))
    assert set(CHARACTERS) - set(written) <= set("\\^`{|}~=")
    assert set(written) <= set(CHARACTERS)


def test_faces_belong_to_one_split() -> None:
    families = {split: {face.name.rpartition("-")[0] for face in faces(split)} for split in SPLITS}
    assert not families["train"] & families["heldout"]
    assert len(families["train"]) + len(families["heldout"]) >= 12
    assert len(families["heldout"]) >= 3
    assert all(bold_sibling(face).split == face.split for face in FACES)


def test_faces_are_bundled_with_their_licenses() -> None:
    assert {path.stem for path in FONT_DIRECTORY.glob("*.ttf")} == {face.name for face in FACES}
    families = {face.name.rpartition("-")[0] for face in FACES}
    assert {path.stem for path in (FONT_DIRECTORY / "licenses").glob("*.txt")} == families
    assert sum(path.stat().st_size for path in FONT_DIRECTORY.rglob("*.*")) < 1_700_000
    notes = (FONT_DIRECTORY / "README.md").read_text(encoding="utf-8")
    for face in FACES:
        row = next(line for line in notes.splitlines() if line.startswith(f"| `{face.name.rpartition('-')[0]}-"))
        assert row.endswith("| held-out |" if face.split == "heldout" else "| train |")


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
def test_face_draws_every_character(face: Face) -> None:
    font = load_font(face.name, 24)
    missing = font.getmask("\uffff")
    for character in CHARACTERS.strip():
        drawn = font.getmask(character)
        assert drawn.getbbox() is not None, character
        assert bytes(drawn) != bytes(missing), character


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
@pytest.mark.parametrize("size", [9, 17, 30])
def test_text_of_cached_glyphs_equals_that_of_the_font_engine(face: Face, size: int) -> None:
    text = "AV To. fi jj 12.50 (Wy)"
    font = load_font(face.name, size)
    ours, theirs = Image.new("L", (600, 60)), Image.new("L", (600, 60))
    draw_text(ours, (8, 6), text, face.name, size)
    ImageDraw.Draw(theirs).text((8, 6), text, fill=255, font=font)
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs)).max() < 80, "but for touching letters"
    assert (np.asarray(ours) != np.asarray(theirs)).mean() < 0.002
    assert ours.getbbox() == ink_box(face.name, size, text, (8, 6))
    assert text_width(face.name, size, text) == font.getlength(text)


def test_stable_hash_is_fixed() -> None:
    assert stable_hash("convllava", 1) == stable_hash("convllava", "1") != stable_hash("convllava1")
    assert stable_hash("convllava", 1) == STABLE_HASH


STABLE_HASH = 17888563078855198721


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "document_"}, "unknown kind 'document_'; did you mean 'document'?"),
        ({"kind": "line", "split": "held-out"}, "unknown split 'held-out'; did you mean 'heldout'?"),
        (
            {"kind": "line", "nois": 0},
            "unknown option of synthetic kind 'line' 'nois'; did you mean 'noise'?",
        ),
        ({"kind": "line", "rows": 0}, "rows must be a whole number of at least 1, got 0"),
        (
            {"kind": "line", "rows": 4},
            "4 rows leave 8 pixels each in the smallest size; at least 12 are needed",
        ),
        ({"kind": "line", "cap": [0.9, 0.5]}, "cap must rise within 0.1..1.0, got 0.9..0.5"),
        ({"kind": "line", "content": "field"}, "unknown content 'field'; did you mean 'fields'?"),
        ({"kind": "line", "noise": 2}, "noise must be a number from 0 to 1, got 2"),
        ({"kind": "line", "sizes": []}, "sizes is empty"),
        ({"kind": "line", "sizes": [32, 192]}, "a size must be [height, width] in whole pixels, got 32"),
        (
            {"kind": "line", "sizes": [[8, 192]]},
            "size 8x192 is too small: each side needs at least 16 pixels",
        ),
        ({"kind": "scene", "tasks": ["counts"]}, "unknown task 'counts'; did you mean 'count'?"),
        ({"kind": "scene", "tasks": "count"}, "tasks must be a list with at least one of: caption, count"),
        ({"kind": "scene", "most": 40}, "most must be a whole number from 1 to 12, got 40"),
        ({"kind": "scene", "most": 1}, "task 'neighbor' needs two objects, but most is 1"),
        ({"kind": "grounding", "tasks": []}, "tasks must be a list with at least one of: attribute"),
        ({"kind": "document", "layouts": ["reciept"]}, "unknown layout 'reciept'; did you mean 'receipt'?"),
        ({"kind": "document", "sizes": [[96, 96]]}, "a sixth of the shortest side) must rise within 6..16"),
        ({"kind": "document", "count": -1}, "count must be a whole number of at least 0, got -1"),
        ({"kind": "line", "split": "train", "count": 2.5}, "count must be a whole number"),
        ({"kind": "documents", "layouts": ["menu"]}, "unknown layout 'menu'"),
        ({"kind": "documents", "questions": -1}, "questions must be a whole number of at least 0, got -1"),
        ({"kind": "lines", "font_size": [4, 20]}, "font_size must rise within 10..96, got 4..20"),
        ({"kind": "scenes", "most": 40}, "most must be a whole number from 1 to 12, got 40"),
        ({"kind": "boxes", "tasks": ["boxes"]}, "unknown task 'boxes'"),
    ],
)
def test_invalid_options_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SyntheticDataset(**{"count": 10, **arguments})


def test_index_beyond_the_end() -> None:
    dataset = SyntheticDataset("line", count=3)
    assert len(list(dataset)) == 3
    with pytest.raises(IndexError, match="sample 3 of 3"):
        dataset[3]
    with pytest.raises(IndexError):
        dataset.image_sizes(-4)
