"""What the scripts in benchmarks/ compute before a model comes into play."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convllava.synthetic import names, words
from convllava.synthetic.fonts import FACES, FONT_DIRECTORY


def load(repository: Path, name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"script_{name}", repository / "benchmarks" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def printed_page(repository: Path) -> Any:
    return load(repository, "printed_page")


@pytest.fixture(scope="module")
def curves(repository: Path) -> Any:
    return load(repository, "learning_curves")


FACE = str(FONT_DIRECTORY / "work-sans-regular.ttf")  # here only the cutting matters


def photographed(printed_page: Any, text: str) -> Image.Image:
    image: Image.Image = printed_page.photograph(printed_page.print_page(text, FACE, 36))
    return image


def listed_words() -> set[str]:
    """Every word of the lists that the generator draws from."""
    found: set[str] = set()
    for module in (words, names):
        for value in vars(module).values():
            texts = value if isinstance(value, tuple | list) else [value]
            found |= {
                word.lower() for text in texts if isinstance(text, str) for word in re.findall("[A-Za-z]{3,}", text)
            }
    return found


def test_built_in_pages_share_nothing_with_the_generator(printed_page: Any) -> None:
    known = listed_words()
    assert len(known) > 1000
    for text in printed_page.TEXTS.values():
        assert not {word.lower() for word in re.findall("[A-Za-z]{3,}", text)} & known
    trained = {face.name for face in FACES if face.split == "train"}
    assert not {Path(face).stem for face in printed_page.FACES} & trained


@pytest.mark.parametrize("name", ["minerals", "orchestra"])
def test_rows_and_pieces_are_found_in_the_photograph(printed_page: Any, name: str) -> None:
    text = printed_page.TEXTS[name]
    image = photographed(printed_page, text)
    spans = printed_page.rows_of(printed_page.ink_of(image))
    first, leading = 2 * 36, round(1.6 * 36)
    assert [(top + bottom) // 2 // leading for top, bottom in spans] == [
        (first + round((number + 0.5) * leading)) // leading for number in range(len(text.splitlines()))
    ]
    assert [len(row) for row in printed_page.pieces_of(image, None)] == [1] * len(spans)
    pieces = printed_page.pieces_of(image, 3)
    assert all(piece.size[1] == 64 and piece.width <= 3 * 64 for row in pieces for piece in row)
    words_of_row = [len(line.split()) for line in text.splitlines()]
    assert all(2 <= len(row) <= 2 * most for row, most in zip(pieces, words_of_row, strict=True))


def test_rows_are_cut_at_the_widest_gap_within_reach(printed_page: Any) -> None:
    letters = [(0, 10), (12, 20), (30, 40), (42, 50), (52, 60)]
    assert printed_page.cut_row(letters, 45) == [letters[:2], letters[2:]]
    assert printed_page.cut_row(letters, 100) == [letters]
    assert printed_page.cut_row(letters, 1) == [[letter] for letter in letters]


def test_the_photograph_is_uneven_and_always_the_same(printed_page: Any) -> None:
    first, second = (photographed(printed_page, "Zircon\nGneiss") for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(second))
    pixels = np.asarray(first.convert("L"), dtype=float)
    assert pixels[:20, :20].mean() - pixels[-20:, -20:].mean() > 40


def test_a_perfect_reader_has_no_errors(printed_page: Any) -> None:
    found = printed_page.judge("a", "b", "Zircon 38\nGneiss", {"page": "Zircon 38 Gneiss", "rows": "Zircon\n38 Gnei5"})
    assert [(own.edits, own.characters) for own in found] == [(0, 16), (2, 16)]
    assert printed_page.summary(found).splitlines()[-1] == "| all |  | 0.000 | 0.125 |"


def write_run(folder: Path, stage: str, losses: list[float], batch: int = 10) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"training_stage: {stage}\nglobal_batch_size: {batch}\n")
    lines = [json.dumps({"step": 5 * (number + 1), "loss": loss}) for number, loss in enumerate(losses)]
    (folder / "log.jsonl").write_text(
        "\n".join([*lines, json.dumps({"step": 10, "train_loss": 1}), '{"step": 11, "lo'])
    )
    return folder


def test_curves_stand_one_behind_the_other(curves: Any, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", "encoder", [4.0, 2.0]), write_run(tmp_path / "b", "pretrain", [3.0, 1.5], 20)]
    found = [curves.read_curve(run) for run in runs]
    assert [own.samples for own in found] == [[50, 100], [100, 200]]
    assert [own.losses for own in found] == [[4.0, 2.0], [3.0, 1.5]]
    curves.draw(found, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert "a (encoder): 2.00 a character" in drawn or "<path" in drawn
    (tmp_path / "a" / "log.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(ValueError, match=r"log.jsonl, line 2: not JSON"):
        curves.read_curve(tmp_path / "a")
    (tmp_path / "a" / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"log.jsonl holds no losses yet"):
        curves.read_curve(tmp_path / "a")


def test_runs_are_drawn_in_the_order_of_their_numbers(curves: Any) -> None:
    globbed = [Path("runs") / name for name in ("0_a", "10_b", "2_c")]
    assert [run.name for run in curves.in_order(globbed)] == ["0_a", "2_c", "10_b"]
    assert curves.in_order([*globbed, Path("runs/other")]) == [*globbed, Path("runs/other")]


def test_tiles_are_those_of_llava_next(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A square takes 2 x 2 tiles, a wide image three in a row; each pixel of an image that fits is in one tile."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    anyres = load(repository, "anyres")
    assert anyres.grid_of(1536, 1536, 768) == (1536, 1536)
    assert anyres.grid_of(400, 1300, 336) == (336, 1008)
    image = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    views = anyres.tiles_of(image, 64)
    assert views.shape == (5, 3, 64, 64)
    for number, (top, left) in enumerate(((0, 0), (0, 64), (64, 0), (64, 64))):
        torch.testing.assert_close(views[1 + number], image[:, top : top + 64, left : left + 64])
    wide = anyres.tiles_of(torch.ones(3, 100, 300), 64)
    assert wide.shape == (4, 3, 64, 64)
    assert 0.9 < float(wide[1:].mean()) <= 1.0


def test_total_of_a_receipt_is_the_last_amount_of_the_line_that_says_so(repository: Path) -> None:
    peers = load(repository, "ocr_peers")
    lines = ["COFFEE 2.50", "SUBTOTAL 12.00", "Total RM 13.20", "CASH 20.00"]
    assert peers.total_of(lines) == "13.20"
    assert peers.total_of(lines[:2]) == ""


def test_blocks_are_denser_in_smaller_type(repository: Path) -> None:
    script = load(repository, "characters_per_token")
    carried = [script.density(script.benchmark_of(size), 6) for size in (40, 24, 14)]
    assert carried[0] < 4 < carried[1] < 9 < carried[2]
