"""Images from anywhere, and one clear line for what is not one."""

import gc
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convllava import fetch
from convllava.fetch import FetchPolicy
from convllava.inference import images as user_images
from convllava.inference import open_image, open_images
from convllava.inference.images import num_pages

RED = (200, 30, 40)


def draw_image(width: int = 40, height: int = 30) -> Image.Image:
    return Image.new("RGB", (width, height), RED)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve the temporary folder on the loopback interface."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    httpd = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda data: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    """A PDF with a red page of 40 x 30 points and a white one of 100 x 50."""
    path = tmp_path / "file.pdf"
    second = Image.new("RGB", (100, 50), "white")
    draw_image().save(path, save_all=True, append_images=[second], resolution=72)
    return path


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp", "p.gif", "p.bmp", "p.tiff", "p.ppm", "p.ico"])
def test_files(tmp_path: Path, name: str) -> None:
    draw_image().save(tmp_path / name, **({"sizes": [(40, 30)]} if name == "p.ico" else {}))
    for source in (tmp_path / name, str(tmp_path / name)):
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert np.abs(np.asarray(opened)[15, 20].astype(int) - RED).max() < 8


def test_loaded_images() -> None:
    pixels = np.asarray(draw_image())
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for source in (draw_image(), pixels, tensor):
        assert open_image(source).size == (40, 30)
    with pytest.raises(ValueError, match="a PIL image, a numpy array or a torch tensor, got int"):
        open_image(7)


def test_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    for name in ("p.jpg", "p.tiff"):
        draw_image(40, 30).save(tmp_path / name, exif=exif)
        assert open_image(tmp_path / name).size == (30, 40)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    other = Image.new("RGB", (40, 30), "blue")
    draw_image().save(tmp_path / "p.gif", save_all=True, append_images=[other])
    assert np.abs(np.asarray(open_image(tmp_path / "p.gif"))[0, 0].astype(int) - RED).max() < 8


@pytest.mark.parametrize("size", [(300, 1), (1, 300), (1, 1)])
def test_one_pixel_is_enough(tmp_path: Path, size: tuple[int, int]) -> None:
    draw_image(*size).save(tmp_path / "p.png")
    assert open_image(tmp_path / "p.png").size == size


def test_url(tmp_path: Path, server: str) -> None:
    draw_image().save(tmp_path / "p.png")
    assert open_image(f"{server}/p.png").size == (40, 30)
    with pytest.raises(ValueError, match=r"nope.png cannot be fetched \(HTTP Error 404: File not found\)"):
        open_image(f"{server}/nope.png")


def test_url_that_is_no_image(tmp_path: Path, server: str) -> None:
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(ValueError, match=r"page.html is not an image that can be read"):
        open_image(f"{server}/page.html")


def test_url_that_is_too_large(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.png").write_bytes(b"x" * 2000)
    limits = replace(user_images.LIMITS, fetch=FetchPolicy(max_bytes=1000))
    monkeypatch.setattr(user_images, "LIMITS", limits)
    with pytest.raises(ValueError, match="more than the 1000 bytes allowed"):
        open_image(f"{server}/p.png")


def test_url_that_is_too_slow(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_image().save(tmp_path / "p.png")
    clock = iter([0.0, 1000.0, 2000.0])
    monkeypatch.setattr(fetch.time, "monotonic", lambda: next(clock))
    with pytest.raises(ValueError, match="not complete after 30 seconds"):
        open_image(f"{server}/p.png")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/p.png", "http://", "http://[::1/p", "http://a b/c", "http://a:b/"])
def test_url_that_leads_nowhere(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be fetched"):
        open_image(url)


def test_standard_input(standard_input: Any) -> None:
    buffer = io.BytesIO()
    draw_image().save(buffer, "PNG")
    standard_input(buffer.getvalue())
    assert open_image("-").size == (40, 30)
    with pytest.raises(ValueError, match="standard input is empty"):
        open_image("-")  # it can be read once
    standard_input(b"no image")
    with pytest.raises(ValueError, match="standard input is not an image"):
        open_image("-")


def test_a_pipe(tmp_path: Path) -> None:
    draw_image().save(tmp_path / "p.png")
    reading, writing = os.pipe()
    os.write(writing, (tmp_path / "p.png").read_bytes())
    os.close(writing)
    assert open_image(f"/dev/fd/{reading}").size == (40, 30)
    os.close(reading)


def test_pages(pdf: Path) -> None:
    assert open_image(pdf).size == (80, 60)  # 144 dots an inch, 72 points an inch
    assert np.abs(np.asarray(open_image(pdf, page=1))[30, 40].astype(int) - RED).max() < 8
    assert open_image(str(pdf), page=2).size == (200, 100)
    assert [image.size for image in open_images([draw_image(), pdf], page=2)] == [(40, 30), (200, 100)]


def test_a_poster_is_rendered_more_coarsely(tmp_path: Path) -> None:
    Image.new("L", (100, 50)).save(tmp_path / "poster.pdf", resolution=1)
    assert max(open_image(tmp_path / "poster.pdf").size) == 4096


@pytest.mark.parametrize("page", [0, 3, -1])
def test_missing_page(pdf: Path, page: int) -> None:
    with pytest.raises(ValueError, match=f"has no page {page}: its pages are 1 to 2"):
        open_image(pdf, page=page)


@pytest.mark.parametrize(
    ("pages", "widths"),
    [("2", [200]), ("1-2", [80, 200]), ("2-", [200]), ("1-", [80, 200]), ("2,1", [200, 80]), (" 1 - 1 , 2", [80, 200])],
)
def test_several_pages_become_several_images(pdf: Path, pages: str, widths: list[int]) -> None:
    assert [image.width for image in open_images([pdf], pages)] == widths
    images = open_images([draw_image(), pdf, pdf], pages)
    assert [image.width for image in images] == [40, *widths, *widths]


def test_several_frames_of_a_tiff(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40 + 8 * number, 30)) for number in range(4)]
    frames[0].save(tmp_path / "p.tif", save_all=True, append_images=frames[1:])
    assert [image.width for image in open_images([tmp_path / "p.tif"], "2-3")] == [48, 56]
    assert num_pages(tmp_path / "p.tif") == 4


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ("two", "page 'two' is not a page or a range of pages: write 2, 2-5, 2- or 1,3"),
        ("1-2-3", "is not a page or a range"),
        ("", "is not a page or a range"),
        ("2-1", "page '2-1' is no range of pages: the smaller number comes first"),
        ("1-3", "has no page 3: its pages are 1 to 2"),
        ("3-", "has no page 3: its pages are 1 to 2"),
        (",".join(["1-2"] * 40), "80 pages of .* are selected, at most 64"),
    ],
)
def test_what_is_wrong_with_pages(pdf: Path, pages: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_images([pdf], pages)


def test_a_locked_pdf_needs_its_password(tmp_path: Path) -> None:
    (tmp_path / "locked.pdf").write_bytes(locked_pdf(b"open sesame"))
    assert open_image(tmp_path / "locked.pdf", password="open sesame").size == (144, 72)
    with pytest.raises(ValueError, match=r"locked.pdf needs a password: give it \(--pdf-password"):
        open_image(tmp_path / "locked.pdf")
    with pytest.raises(ValueError, match=r"locked\.pdf has another password: give the right one"):
        open_image(tmp_path / "locked.pdf", password="sesame")


def locked_pdf(password: bytes) -> bytes:
    """A PDF of an empty page of 72 x 36 points that is encrypted with 40 bits (RC4, revision 2)."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    padded, ident = (password + padding)[:32], b"0123456789abcdef"
    owner = _rc4(hashlib.md5(padded, usedforsecurity=False).digest()[:5], padded)
    seed = padded + owner + (-4).to_bytes(4, "little", signed=True) + ident
    user = _rc4(hashlib.md5(seed, usedforsecurity=False).digest()[:5], padding)
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 36]>>",
        b"<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (owner.hex().encode(), user.hex().encode()),
    ]
    data, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        places.append(len(data))
        data += b"%d 0 obj%sendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<%s><%s>]>>" % ((ident.hex().encode(),) * 2)
    return data + b"xref\n0 5\n0000000000 65535 f \n%strailer%s\nstartxref\n%d\n%%%%EOF" % (table, trailer, len(data))


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    encrypted = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        encrypted.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(encrypted)


def test_a_page_of_no_pdf(tmp_path: Path) -> None:
    draw_image().save(tmp_path / "p.png")
    with pytest.raises(ValueError, match=r"page 2 was asked for but there is no PDF or other file with pages.*p.png"):
        open_image(tmp_path / "p.png", page=2)


def test_damaged_pdf(tmp_path: Path) -> None:
    (tmp_path / "p.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    with pytest.raises(ValueError, match=r"p\.pdf is a PDF that cannot be read"):
        open_image(tmp_path / "p.pdf")


def test_truncated(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("p.jpg", "p.png", "p.webp", "p.gif", "p.tiff", "p.bmp"):
        noise.save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=name):
            open_image(tmp_path / name)


def test_any_damage_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "p"
    random = np.random.default_rng(0)
    for name in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        draw_image().save(path, name)
        data = bytearray(path.read_bytes())
        for _ in range(30):
            broken = bytearray(data)
            for position in random.integers(0, len(data), 4):
                broken[position] = random.integers(0, 256)
            path.write_bytes(broken)
            try:
                open_image(path)
            except ValueError as error:
                assert str(path) in str(error)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (20_000, 20_000)])
def test_decompression_bomb(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "bomb.ppm").write_text(f"P6 {width} {height} 255\n")
    with pytest.raises(ValueError, match=f"bomb.ppm is too large to open safely.*{Image.MAX_IMAGE_PIXELS}"):
        open_image(tmp_path / "bomb.ppm")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nope\.png does not exist"):
        open_image(tmp_path / "nope.png")
    with pytest.raises(ValueError, match="does not exist"):
        open_image("x" * 5000)
    with pytest.raises(ValueError, match="is a directory"):
        open_image(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "p.png").touch()
    with pytest.raises(ValueError, match=r"p.png is empty \(0 bytes"):
        open_image(tmp_path / "p.png")


@pytest.mark.parametrize("content", [b"some text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>", b"\0"])
def test_not_a_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"p.png is not an image that can be read \(PNG, JPEG"):
        open_image(tmp_path / "p.png")


def test_only_upright_local_jpegs_stay_undecoded(tmp_path: Path) -> None:
    draw_image(400, 300).save(tmp_path / "a.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    draw_image(400, 300).save(tmp_path / "turned.jpg", exif=turned)
    draw_image(400, 300).save(tmp_path / "b.png")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    names = ("a.jpg", "turned.jpg", "b.png")
    lazy = open_images([tmp_path / name for name in names], lazily=True)
    assert [bool(getattr(image, "tile", None)) for image in lazy] == [True, False, False]
    assert [image.size for image in lazy] == [(400, 300), (300, 400), (400, 300)]
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        open_images([tmp_path / "cut.jpg"])


def test_a_jpeg_that_lies_on_its_side_is_not_left_open(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    draw_image(400, 300).save(tmp_path / "turned.jpg", exif=turned)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        open_images([tmp_path / "turned.jpg"], lazily=True)
        gc.collect()
    assert caught == []


def test_an_undecoded_image_may_not_be_too_large_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_image(400, 300).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    with pytest.raises(ValueError, match=r"a\.jpg is too large to open safely"):
        open_images([tmp_path / "a.jpg"], lazily=True)


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\n", b"Received: from a\r\n" * 30])
def test_a_pdf_may_begin_a_little_later(pdf: Path, before: bytes, standard_input: Any) -> None:
    data = before + pdf.read_bytes()
    pdf.write_bytes(data)
    assert open_image(pdf).size == (80, 60)
    assert open_image(pdf, page=2).size == (200, 100)
    standard_input(data)
    assert open_image("-").size == (80, 60)


def test_an_image_that_mentions_a_pdf_is_an_image(tmp_path: Path) -> None:
    draw_image().save(tmp_path / "p.jpg", comment=b"%PDF-1.7")
    assert open_image(tmp_path / "p.jpg").size == (40, 30)


FRAMES = ("tiff", "gif", "webp", "png", "avif")


@pytest.mark.parametrize("suffix", FRAMES)
def test_further_frames_are_told_and_can_be_chosen(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"p.{suffix}"
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for page, channel in ((None, 0), (1, 0), (2, 1), (3, 2)):
        caplog.clear()
        pixel = open_image(path, page=page).getpixel((20, 15))
        assert pixel[channel] > 200 and sum(pixel) < 320
        assert ("has 3 frames, of which the first is shown (--page N" in caplog.text) == (page is None)
    with pytest.raises(ValueError, match=f"p.{suffix} has no page 4: its pages are 1 to 3"):
        open_image(path, page=4)
    assert [image.size for image in open_images([draw_image(), path], page=2)] == [(40, 30), (40, 30)]


def test_a_tiff_damaged_after_its_first_page_shows_that_page(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.tif"
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "lime")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        image.seek(1)
        second = image.tag_v2._offset
    data = bytearray(path.read_bytes())
    data[second : second + 300] = b"\xff" * len(data[second : second + 300])
    path.write_bytes(data)
    assert open_image(path).getpixel((20, 15))[0] > 200
    assert "is damaged after its first frame" in caplog.text
    with pytest.raises(ValueError, match="is damaged"):
        open_image(path, page=2)


def test_further_pages_are_told(pdf: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_image(pdf)
    assert "file.pdf has 2 pages, of which the first is shown (--page N" in caplog.text
    caplog.clear()
    open_image(pdf, page=1)
    draw_image().save(pdf.with_name("p.jpg"))
    open_image(pdf.with_name("p.jpg"))
    assert caplog.text == ""
