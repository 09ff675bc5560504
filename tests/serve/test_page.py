"""The page in a real browser: an image goes in, an answer streams out, boxes are drawn, errors are told."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.conftest import Running, encoded, noise, running

from convllava.inference import Generator
from convllava.model import build_nano_processor

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 30_000  # milliseconds
BOX = "[0.25, 0.10, 0.75, 0.60]"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian's package chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Script:
    """Stands in for the choice of the next token: every answer is this text."""

    def __init__(self, generator: Generator, text: str) -> None:
        tokenizer = build_nano_processor().tokenizer
        self.tokens = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        self.append = generator._append_token
        generator._append_token = self.append_next  # type: ignore[method-assign]

    def append_next(self, sequence: Any, token: int) -> Any:
        return self.append(sequence, self.tokens[len(sequence.token_ids) % len(self.tokens)])


@pytest.fixture(scope="module")
def site(loaded: Any) -> Iterator[Running]:
    """A server whose model always finds the same box."""
    generator = Generator(*loaded, 4, prefix_cache_bytes=1 << 20)
    Script(generator, f"It is here: {BOX}")
    with running(generator, max_image_pixels=1000 * 1000) as server:
        yield server


@pytest.fixture
def page(browser: Any, site: Running) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, permissions=["camera"])
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda request: foreign(request, site, page.troubles))
    page.goto(site.url)
    page.wait_for_selector("#gallery button")
    yield page
    context.close()
    assert page.troubles == []


def foreign(request: Any, site: Running, troubles: list[str]) -> None:
    if not request.url.startswith((site.url, "data:", "blob:")):
        troubles.append(f"the page asks for {request.url}")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "wide.png").write_bytes(encoded(noise(256, 128)))
    return tmp_path / "wide.png"


def ask(page: Any, question: str) -> Any:
    page.fill("#question", question)
    page.press("#question", "Enter")
    return page.locator(".messages li.assistant").last


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript; Playwright's own way of waiting is against the page's policy."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def screenshot(page: Any, name: str) -> None:
    """Keep an image of the page where somebody wants to look at it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_upload_ask_and_see_the_box(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    until(page, "document.querySelector('#estimate').textContent.includes('8 visual tokens of 512')")
    assert "seen at 256 × 128: 2 × 4 = 8 visual tokens" in page.inner_text("#caption")
    page.check("#grid")
    assert page.get_attribute("#overlay", "data-cells") == "2x4"
    answer = ask(page, "Where is it?")
    until(page, "document.querySelector('#overlay').dataset.boxes === '1'")
    assert answer.locator(".text").inner_text() == f"It is here: {BOX}"
    assert answer.locator(".box").inner_text() == BOX
    cost = answer.locator(".cost").inner_text()
    assert "8 visual" in cost and "tokens/s" in cost
    # the box on the padded square, (64, 25.6 - 64 < 0) to (192, 89.6) of 256 x 128 pixels
    color = page.evaluate(
        """() => {
            const canvas = document.querySelector('#overlay'), scale = canvas.width / 256;
            return [...canvas.getContext('2d').getImageData(64 * scale, 50 * scale, 1, 1).data];
        }"""
    )
    assert color[:3] == [0xE6, 0x19, 0x4B]
    screenshot(page, "answer")


def test_boxes_are_drawn_on_the_image_that_they_are_about(page: Any, image: Path, tmp_path: Path) -> None:
    (tmp_path / "square.png").write_bytes(encoded(noise(128, 128)))

    def boxes_on(shown: str) -> bool:
        """Whether this is the image that is shown, with its box."""
        pressed = page.locator("#thumbnails button[aria-pressed=true]").get_attribute("aria-label")
        return shown in pressed and page.get_attribute("#overlay", "data-boxes") == "1"

    page.set_input_files("#file", image)
    ask(page, "Where is it?").locator(".cost").wait_for()
    page.set_input_files("#file", tmp_path / "square.png")
    page.wait_for_selector("#thumbnails button:nth-of-type(1)")
    ask(page, "Where is it now?").locator(".cost").wait_for()
    assert boxes_on("square.png")
    page.locator("#thumbnails button").first.click()
    until(page, "document.querySelector('#overlay').dataset.boxes === '0'")
    ask(page, "Where is it in the first image?").locator(".cost").wait_for()
    until(page, "document.querySelector('#overlay').dataset.boxes === '1'")
    assert boxes_on("wide.png")


def test_a_further_turn_and_a_new_dialogue(page: Any, image: Path, site: Running) -> None:
    page.set_input_files("#file", image)
    ask(page, "Where is it?").locator(".cost").wait_for()
    again = ask(page, "And now?")
    again.locator(".cost").wait_for()
    assert "reused" in again.locator(".cost").inner_text()
    assert page.locator(".messages li").count() == 4
    page.click("#reset")
    assert page.locator(".messages li").count() == 0 and page.is_visible("#drop")


def test_the_answer_streams_and_stops(page: Any, image: Path, site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    step = site.engine.generator.step
    monkeypatch.setattr(site.engine.generator, "step", lambda: time.sleep(0.15) or step())
    page.set_input_files("#file", image)
    answer = ask(page, "Where is it?")
    until(page, "document.querySelector('li.assistant .text')?.textContent.length >= 2")
    shown = answer.locator(".text").inner_text()
    assert f"It is here: {BOX}".startswith(shown) and BOX not in shown
    assert page.is_visible("#stop") and not page.is_visible("#send")
    screenshot(page, "streaming")
    page.keyboard.press("Escape")
    page.wait_for_selector("#send:visible")
    assert answer.locator(".cost").inner_text() == "stopped"
    site.wait_until_idle()
    monkeypatch.undo()
    assert ask(page, "And now?").locator(".cost").inner_text() != ""


def test_errors_are_shown_and_the_question_stays(page: Any, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(encoded(noise(1100, 1000), "JPEG"))
    page.set_input_files("#file", tmp_path / "large.jpg")
    page.fill("#question", "What is it?")
    page.click("#send")
    alert = page.locator("[role=alert]")
    alert.wait_for()
    assert "1100x1000 = 1100000 pixels, at most 1000000 are allowed" in alert.inner_text()
    assert page.input_value("#question") == "What is it?"
    screenshot(page, "error")
    assert alert.inner_text().startswith("The image is too large")
    page.click("#remove")
    assert page.is_visible("#drop") and page.is_visible("#gallery")
    (tmp_path / "words.txt").write_text("words")
    page.set_input_files("#file", tmp_path / "words.txt")
    until(page, "document.querySelectorAll('[role=alert]').length === 2")
    assert "is not an image" in page.locator("[role=alert]").last.inner_text()


def test_options_change_the_estimate(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.click("#options summary")
    page.fill("#budget", "2")
    until(page, "document.querySelector('#estimate').textContent.startsWith('2 visual tokens')")
    page.fill("#budget", "")
    page.select_option("#aspect", "pad")
    until(page, "document.querySelector('#estimate').textContent.includes('needs a resolution')")
    page.fill("#resolution", "128")
    until(page, "document.querySelector('#estimate').textContent.startsWith('4 visual tokens')")
    page.check("#grid")
    assert page.get_attribute("#overlay", "data-cells") == "2x2"
    page.fill("#resolution", "4096")
    until(page, "document.querySelector('#estimate').textContent.includes('too many')")
    screenshot(page, "options")


def test_paste_and_drop(page: Any) -> None:
    data = list(encoded(noise(64, 64)))
    for kind in ("paste", "drop"):
        page.evaluate(
            """([kind, data]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(data)], `${kind}.png`, {type: 'image/png'}));
                const event = kind === 'paste'
                    ? new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true})
                    : new DragEvent('drop', {dataTransfer: transfer, bubbles: true});
                document.body.dispatchEvent(event);
            }""",
            [kind, data],
        )
    until(page, "document.querySelectorAll('#thumbnails button').length === 2")
    until(page, "document.querySelector('#estimate').textContent.startsWith('2 visual tokens')")
    page.get_by_role("button", name="Show image 1, paste.png").click()
    assert page.get_attribute("#image", "alt") == "Image 1: paste.png"


def test_camera(page: Any) -> None:
    page.click("#camera")
    until(page, "document.querySelector('#video').videoWidth > 0")
    page.click("#snap")
    page.wait_for_selector("#shown:visible")
    assert "camera" in (page.get_attribute("#image", "alt") or "")


def test_examples(page: Any, site: Running) -> None:
    examples = json.loads(site.get("/static/examples/examples.json").body)
    assert page.locator("#gallery button").count() == len(examples) >= 4
    page.click("#gallery button >> nth=0")
    page.wait_for_selector("#shown:visible")
    assert page.input_value("#question") == examples[0]["question"]
    ask(page, examples[0]["question"]).locator(".cost").wait_for()
    screenshot(page, "example")


def test_everything_has_a_name_and_a_place_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 375, "height": 700})
    page.emulate_media(color_scheme="dark")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, img:not([alt=""])')]
            .filter((e) => e.offsetParent && !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.alt))
            .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    screenshot(page, "phone")


def test_dark_mode_is_remembered(page: Any) -> None:
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != before
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    screenshot(page, "dark")


def test_a_server_with_a_key(browser: Any, loaded: Any, image: Path) -> None:
    with running(Generator(*loaded, 4), api_key="sesame") as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(server.url)
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "sesame")
        page.press("#key", "Enter")
        until(page, "document.querySelector('#model').textContent === 'tiny'")
        page.set_input_files("#file", image)
        assert ask(page, "What is it?").locator(".cost").inner_text() != ""
        page.close()
