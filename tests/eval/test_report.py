"""The report page in a real browser: content, filters, and no script from the data."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from kit_files import image_text, write_tsv
from PIL import Image

from convllava.eval import LoadOptions, find_benchmark
from convllava.eval.report import write_report

ATTACK = '<script>document.title = "run"</script><img src=x onerror="document.title=\'run\'">'


@pytest.fixture
def page_path(write_predictions: Any, tmp_path: Path) -> Path:
    """A report of four questions: right, wrong, unresolved and error."""
    shown = {"A": "cat", "B": "dog", "answer": "A"}
    rows = [
        {"index": n, "image": image_text("red", (100, 200)), "question": f"Which {n}?", **shown, "category": c}
        for n, c in enumerate(["first", ATTACK, "first", "first"])
    ]
    rows[1]["question"] = ATTACK
    write_tsv(tmp_path / "SEEDBench_IMG.tsv", rows)
    data = find_benchmark("seedbench").load(tmp_path, LoadOptions()).data
    kept = [{name: cell for name, cell in row.items() if name != "image"} for row in rows]
    answers = list(zip(kept, ["A", "B " + ATTACK, "neither", ""], strict=True))
    more = {"data": data, "prompts": "paper", "ocr_tokens": False}
    path = write_predictions(tmp_path / "out", "seedbench", answers, model=ATTACK, errors={3: ATTACK}, **more)
    return write_report(path, data=tmp_path)


@pytest.fixture
def page(page_path: Path) -> Any:
    """The report in Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        own = browser.new_page()
        own.goto(page_path.as_uri())
        yield own
        browser.close()


def shown(page: Any) -> list[str]:
    return [str(a.get_attribute("data-state")) for a in page.locator("article").all() if a.is_visible()]


def test_filters_and_escaping(page: Any) -> None:
    assert shown(page) == ["right", "wrong", "unresolved", "error"]
    page.select_option("#state", "wrong")
    assert shown(page) == ["wrong"]
    assert page.locator("#count").inner_text() == "1 of 4"
    page.select_option("#state", "")
    page.select_option("#category", "first")
    assert shown(page) == ["right", "unresolved", "error"]
    page.select_option("#category", ATTACK)
    assert shown(page) == ["wrong"]
    page.select_option("#category", "")
    page.fill("#text", "which 2")
    assert shown(page) == ["unresolved"]
    assert page.title() == f"seedbench · {ATTACK}"
    assert page.locator("article img").count() == 4
    first = page.locator("article img").first
    first.scroll_into_view_if_needed() if first.is_visible() else None
    page.fill("#text", "")
    page.wait_for_function("document.querySelector('article img').naturalWidth > 0")


def test_boxes_are_drawn_on_the_images(write_predictions: Any, tmp_path: Path) -> None:
    questions = find_benchmark("synthetic-grounding").load(tmp_path, LoadOptions())
    row = {**questions[0].row, "index": "synthetic-grounding/0"}
    more = {"data": questions.data, "prompts": "paper"}
    answered = [(row, "[0.00, 0.00, 0.10, 0.10]")]
    path = write_predictions(tmp_path, "synthetic-grounding", answered, **more)
    page = write_report(path)
    with Image.open(tmp_path / "synthetic-grounding.report" / "0-0.jpg") as image:
        colors = {pixel for _, pixel in image.convert("RGB").getcolors(1 << 20)}
    assert any(abs(r - 0xB0) + g + abs(b - 0x20) < 90 for r, g, b in colors)
    assert any(abs(r - 0x14) + abs(g - 0x70) + abs(b - 0x2E) < 90 for r, g, b in colors)
    assert "reference" in page.read_text()


def test_data_of_another_version_are_an_error(page_path: Path, tmp_path: Path) -> None:
    rows = [{"index": 0, "image": image_text(), "question": "?", "A": "x", "B": "y", "answer": "A"}]
    write_tsv(tmp_path / "SEEDBench_IMG.tsv", rows)
    with pytest.raises(ValueError, match="are not those of the predictions"):
        write_report(tmp_path / "out" / "seedbench.predictions.jsonl", data=tmp_path)
