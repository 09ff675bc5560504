"""Opening and measuring images: the same answer for a path, bytes and an image in memory."""

import base64
import io
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convllava.image_bytes
from convllava.data.images import EncodedImage, open_stored, stored_size
from convllava.eval.table import LoadedImage
from convllava.fetch import FetchPolicy, fetch
from convllava.images import (
    DATA_SET_LIMITS,
    LOCAL_LIMITS,
    SERVER_LIMITS,
    ImageError,
    ImageLimits,
    image_files,
    image_size,
    open_image,
)
from convllava.model import ConvLlavaImageProcessor

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def photograph(width: int = 64, height: int = 192) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (0, height // 2, width, height))
    return image


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def turned(orientation: int, format: str) -> bytes:
    """The photograph as a file that holds it turned, and says so."""
    methods = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    method = methods[orientation]
    image = photograph() if method is None else photograph().transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, format, exif=exif)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
class TestUpright:
    def test_every_reader_of_sizes_sees_the_image_upright(self, orientation: int, format: str, tmp_path: Path) -> None:
        data = turned(orientation, format)
        path = tmp_path / f"p.{format.lower()}"
        path.write_bytes(data)
        stored = EncodedImage(data, "p", "shard.tar")
        undecoded = Image.open(io.BytesIO(data))
        decoded = Image.open(io.BytesIO(data))
        decoded.load()
        assert [image_size(source) for source in (path, data, undecoded, decoded)] == [(192, 64)] * 4
        assert [stored_size(source) for source in (path, stored, decoded)] == [(192, 64)] * 3
        assert LoadedImage(decoded).size == (192, 64)

    def test_every_opener_shows_the_image_upright(self, orientation: int, format: str, tmp_path: Path) -> None:
        data = turned(orientation, format)
        path = tmp_path / f"p.{format.lower()}"
        path.write_bytes(data)
        sources = [path, str(path), data, io.BytesIO(data), Image.open(io.BytesIO(data))]
        images = [open_image(source) for source in sources]
        images += [open_image(path, lazily=True), open_stored(EncodedImage(data, "p", "shard.tar"))]
        for image in images:
            assert (image.mode, image.size) == ("RGB", (64, 192))
            red, _, blue = image.getpixel((32, 20))
            assert red > 200 > 50 > blue

    @pytest.mark.parametrize("preprocessing", ["exact", "fast"])
    def test_the_image_processor_shows_it_upright(
        self, preprocessing: str, orientation: int, format: str, tmp_path: Path
    ) -> None:
        data = turned(orientation, format)
        (tmp_path / "p").write_bytes(data)
        processor = ConvLlavaImageProcessor(preprocessing=preprocessing)
        for source in (str(tmp_path / "p"), Image.open(io.BytesIO(data))):
            pixels, sizes = processor.prepare([source])
            assert sizes.tolist() == [[192, 64]]
            assert pixels[0, 0, 20, 32] > 1 > 0 > pixels[0, 0, 170, 32]  # red above


class TestOnce:
    def test_an_upright_rgb_image_is_not_copied(self) -> None:
        image = photograph()
        assert open_image(image) is image

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "F"])
    def test_opening_twice_changes_nothing(self, mode: str) -> None:
        image = Image.new(mode, (8, 8))
        opened = open_image(image)
        assert opened.mode == "RGB"
        assert open_image(opened) is opened

    def test_one_image_is_neither_padded_nor_copied(self) -> None:
        pixels, sizes = ConvLlavaImageProcessor().prepare([photograph(64, 128)])
        (alone,) = ConvLlavaImageProcessor().prepare_each([photograph(64, 128)])
        assert torch.equal(pixels[0], alone) and sizes.tolist() == [[128, 64]]


class TestSources:
    def test_all_forms_of_one_image(self, tmp_path: Path) -> None:
        data = encoded(photograph())
        (tmp_path / "p.png").write_bytes(data)
        text = base64.b64encode(data).decode()
        wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
        sources = [
            tmp_path / "p.png",
            str(tmp_path / "p.png"),
            data,
            io.BytesIO(data),
            text,
            f"data:image/png;base64,{text}",
            f"DATA:image/png;charset=utf-8;base64,{wrapped}",
            np.asarray(photograph()),
            torch.from_numpy(np.array(photograph())).permute(2, 0, 1),
        ]
        for source in sources:
            assert np.array_equal(np.asarray(open_image(source)), np.asarray(photograph()))

    @pytest.mark.parametrize("source", ["x" * 80, "x" * 5000, "a/b.png"])
    def test_a_path_is_not_taken_for_base64(self, source: str) -> None:
        with pytest.raises(ImageError, match="does not exist") as caught:
            open_image(source)
        assert caught.value.kind == "missing" and len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        ("url", "kind"),
        [
            ("data:text/html;base64,PGI+", "data_url"),
            ("data:image/png;base64,****", "base64"),
            ("data:image/png;base64,", "empty"),
            ("data:image/png;base64," + "AAAA" * 2000, "unreadable"),
        ],
    )
    def test_a_data_url_that_is_wrong_is_named_in_short(self, url: str, kind: str) -> None:
        with pytest.raises(ImageError) as caught:
            open_image(url)
        assert caught.value.kind == kind and len(str(caught.value)) < 400

    def test_the_error_can_be_handed_between_processes(self) -> None:
        error = ImageError("missing", "a.png", "does not exist")
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.kind, copy.name) == (str(error), "missing", "a.png")


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "allowed"), [(LOCAL_LIMITS, 1000), (DATA_SET_LIMITS, 2000), (ImageLimits(max_pixels=500), 500)]
    )
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_pixels(self, limits: ImageLimits, allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        fits, large = (encoded(Image.new("RGB", (height, 10))) for height in (allowed // 10, allowed // 10 + 1))
        assert open_image(fits, limits=limits).height == 10
        for read in (open_image, image_size):
            with pytest.raises(ImageError, match=f"at most {allowed} are allowed") as caught:
                read(large, limits=limits)
            assert caught.value.kind == "too_large"

    def test_formats(self) -> None:
        data = encoded(photograph(), "TIFF")
        assert open_image(data).size == (64, 192)
        with pytest.raises(ImageError, match="not an image that can be read") as caught:
            open_image(data, limits=SERVER_LIMITS)
        assert caught.value.kind == "unreadable"

    @pytest.mark.parametrize("limits", [LOCAL_LIMITS, DATA_SET_LIMITS, SERVER_LIMITS])
    def test_no_format_that_runs_other_programs(self, limits: ImageLimits) -> None:
        with pytest.raises(ImageError, match="not an image that can be read"):
            open_image(encoded(photograph(), "EPS"), limits=limits)

    def test_animations(self) -> None:
        data = encoded(photograph(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 192))])
        assert open_image(data).size == (64, 192)
        with pytest.raises(ImageError, match="is animated"):
            open_image(data, limits=SERVER_LIMITS)


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.PNG", "b/a.png", "a.jpeg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)] == ["a.jpeg", "b/a.png", "z.PNG"]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        image_files(tmp_path)
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"broken\.png is not an image"):
        image_size(tmp_path / "broken.png")


def quick(seconds: float) -> ImageLimits:
    return ImageLimits(fetch=FetchPolicy(seconds=seconds))


class TestSpecialFiles:
    """A path may name anything; nothing is waited for without end, nothing is read without end."""

    def test_a_pipe_without_a_writer(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p.png")
        start = time.monotonic()
        for read in (open_image, image_size):
            with pytest.raises(ImageError, match=r"p.png is a pipe that did not end within 0.2 seconds"):
                read(tmp_path / "p.png", limits=quick(0.2))
        assert time.monotonic() - start < 5

    def test_a_pipe_whose_writer_stalls(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p.png")
        held = os.open(tmp_path / "p.png", os.O_RDWR)
        os.write(held, encoded(photograph())[:50])
        with pytest.raises(ImageError, match="did not end within"):
            open_image(tmp_path / "p.png", limits=quick(0.2))
        os.close(held)

    def test_a_pipe_with_an_image(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p.png")
        data = encoded(photograph())
        writer = threading.Thread(target=lambda: (tmp_path / "p.png").write_bytes(data))
        writer.start()
        assert open_image(tmp_path / "p.png", limits=quick(20)).size == (64, 192)
        writer.join()

    def test_a_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # the path of a socket has at most 108 bytes
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("p.png")
            with pytest.raises(ImageError, match=r"p.png is a device or a socket"):
                open_image("p.png")

    @pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "/dev/null"])
    @pytest.mark.parametrize("lazily", [False, True])
    def test_a_device(self, path: str, lazily: bool) -> None:
        with pytest.raises(ImageError, match="is a device"):
            open_image(path, lazily=lazily)

    @pytest.mark.parametrize("limits", [LOCAL_LIMITS, DATA_SET_LIMITS])
    @pytest.mark.parametrize("head", [b"", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBP", b"BM", b"II*\0"])
    def test_a_sparse_file(self, tmp_path: Path, head: bytes, limits: ImageLimits) -> None:
        path = tmp_path / "sparse.png"
        path.write_bytes(head)
        os.truncate(path, 8 << 30)
        with pytest.raises(ImageError, match=r"sparse.png has 8589934592 bytes, at most"):
            open_image(path, limits=limits)


class TestNamedFormats:
    @pytest.mark.parametrize(
        ("data", "found"),
        [
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC: 'pip install pillow-heif' makes it readable"),
            (b"\xff\x0a" + bytes(30), "JPEG XL: convert it first"),
            (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG"),
            (b"%PDF-1.7\n", "PDF"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
            (b"<!DOCTYPE html><html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ],
    )
    def test_the_format_is_named(self, data: bytes, found: str, tmp_path: Path) -> None:
        (tmp_path / "p.jpg").write_bytes(data)
        for limits in (LOCAL_LIMITS, DATA_SET_LIMITS):
            with pytest.raises(ImageError) as caught:
                open_image(tmp_path / "p.jpg", limits=limits)
            assert f"but {found}" in str(caught.value) and "BytesIO" not in str(caught.value)

    def test_a_server_does_not_advise_a_plug_in(self) -> None:
        with pytest.raises(ImageError, match="but HEIC: convert it first"):
            open_image(b"\0\0\0\x18ftypheic" + bytes(20), limits=SERVER_LIMITS)

    def test_heic_opens_with_the_plug_in(self, tmp_path: Path) -> None:
        """A stand-in for pillow-heif, which is not installed here: it registers the format as the real one does."""
        (tmp_path / "pillow_heif.py").write_text(
            "from PIL import BmpImagePlugin, Image\n"
            "def register_heif_opener():\n"
            "    factory = lambda file, name: (file.seek(12), BmpImagePlugin.DibImageFile(file, name))[1]\n"
            "    Image.register_open('HEIF', factory, lambda head: head[4:12] == b'ftypheic')\n"
        )
        dib = encoded(photograph(), "DIB")
        (tmp_path / "p.heic").write_bytes(b"\0\0\0\x18ftypheic" + dib)
        script = (
            "import sys; from pathlib import Path; from convllava.images import open_image, image_size\n"
            "p = Path(sys.argv[1]); print(image_size(p), open_image(p).mode, open_image(p.read_bytes()).mode)"
        )
        paths = os.pathsep.join([str(tmp_path), *sys.path])
        command = [sys.executable, "-c", script, str(tmp_path / "p.heic")]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
        assert done.stdout.strip() == "(192, 64) RGB RGB", done.stderr


class TestSpelling:
    @pytest.mark.parametrize(
        ("given", "there", "hint"),
        [
            ("a\\b.png", "a/b.png", "the path has backslashes"),
            ("C:\\a\\b.png", "a/b.png", "the path has backslashes; write it with /"),
            ("caf\u00e9.png", "cafe\u0301.png", "another Unicode form (NFD)"),
            ("cafe\u0301.png", "caf\u00e9.png", "another Unicode form (NFC)"),
            ("a%20b.png", "a b.png", "percent escapes"),
            ("b.jpg", "b.JPG", "another case"),
        ],
    )
    def test_the_way_out(self, given: str, there: str, hint: str, tmp_path: Path) -> None:
        (tmp_path / there).parent.mkdir(exist_ok=True)
        (tmp_path / there).write_bytes(encoded(photograph()))
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / given)
        assert caught.value.kind == "missing" and hint in str(caught.value)


class TestLargeJpegs:
    """A JPEG beyond the limit is decoded at a half, a quarter or an eighth, and its size is told accordingly."""

    @pytest.mark.parametrize("options", [{}, {"progressive": True}])
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize(("limit", "shown"), [(13_000, (192, 64)), (4_000, (96, 32)), (3_100, (96, 32))])
    def test_reduced(
        self,
        limit: int,
        shown: tuple[int, int],
        options: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = tmp_path / "p.jpg"
        path.write_bytes(encoded(photograph(), "JPEG", **options))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert image_size(path) == shown
        for lazily in (False, True):
            image = open_image(path, lazily=lazily)
            assert (image.height, image.width) == shown and image.getpixel((10, 10))[0] > 200
        for preprocessing in ("exact", "fast"):
            processor = ConvLlavaImageProcessor(preprocessing=preprocessing)
            _, sizes = processor.prepare([str(path)])
            assert tuple(sizes[0].tolist()) == processor.resized_shape(*shown)
        assert ("64x192 pixels and is decoded at 1/2" in caplog.text) == (shown != (192, 64))

    def test_not_beyond_four_times_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
        with pytest.raises(ImageError, match="too large to open safely"):
            open_image(encoded(photograph(), "JPEG"))

    def test_not_for_clients_of_a_server(self) -> None:
        with pytest.raises(ImageError, match="too large to open safely: 64x192"):
            open_image(encoded(photograph(), "JPEG"), limits=replace(SERVER_LIMITS, max_pixels=4000))


class Dripping(BaseHTTPRequestHandler):
    """Sends a byte every 20 ms: of its headers, or of its body."""

    def do_GET(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"
        if self.path.startswith("/body"):
            self.wfile.write(head + b"\r\n")
            head = b""
        with suppress(OSError):
            self.wfile.write(head)
            for _ in range(500):
                self.wfile.write(b"X-A: b\r\n" if self.path.startswith("/lines") else b"x")
                self.wfile.flush()
                time.sleep(0.02)

    def log_message(self, *args: Any) -> None: ...


class KeepingAlive(BaseHTTPRequestHandler):
    """Keeps the connection after the response, as most servers do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = encoded(photograph())
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("public_only", [False, True])
def test_a_server_that_keeps_the_connection(public_only: bool) -> None:
    policy = FetchPolicy(seconds=20, public_only=public_only, is_allowed=lambda address: True)
    with serving(KeepingAlive) as port:
        assert open_image(f"http://127.0.0.1:{port}/p.png", limits=ImageLimits(fetch=policy)).size == (64, 192)


class TestSlowSenders:
    @pytest.fixture
    def site(self) -> Iterator[int]:
        with serving(Dripping) as port:
            yield port

    @pytest.mark.parametrize("path", ["head", "lines", "body"])
    @pytest.mark.parametrize("public_only", [False, True])
    def test_headers_and_body_have_one_time_limit(self, site: int, path: str, public_only: bool) -> None:
        policy = FetchPolicy(seconds=0.4, public_only=public_only, is_allowed=lambda address: True)
        start = time.monotonic()
        with pytest.raises(ImageError, match="cannot be fetched" if public_only else "not complete after 0.4 seconds"):
            open_image(f"http://127.0.0.1:{site}/{path}", limits=ImageLimits(fetch=policy))
        assert time.monotonic() - start < 3

    def test_the_image_processor_is_bounded_too(self, site: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(convllava.image_bytes, "fetch", partial(_fetch_within, 0.4))
        with pytest.raises(ImageError, match="not complete after"):
            ConvLlavaImageProcessor()(images=f"http://127.0.0.1:{site}/body")


def _fetch_within(seconds: float, url: str, policy: FetchPolicy) -> bytes:
    return fetch(url, replace(policy, seconds=seconds))


@pytest.mark.parametrize("change", ["unpadded", "wrapped", "blank", "url_safe"])
def test_base64_as_it_is_met(change: str) -> None:
    text = base64.b64encode(encoded(photograph(64, 191))).decode()
    changed = {"unpadded": text.rstrip("="), "wrapped": "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))}
    changed["url_safe"] = text.replace("+", "-").replace("/", "_")
    changed["blank"] = f" {text}\n"
    for source in (changed[change], f"data:image/png;base64,{changed[change]}"):
        assert open_image(source).size == (64, 191)


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (65_000, 1), (4, 4)])
def test_thin_images_are_told(size: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("p.png", "p.jpg"):
        caplog.clear()
        Image.new("RGB", size).save(tmp_path / name)
        open_image(tmp_path / name, lazily=True)
        assert f"{name} has {size[0]}x{size[1]} pixels: nothing can be read in it" in caplog.text
    caplog.clear()
    Image.new("RGB", (64, 8)).save(tmp_path / "line.png")
    open_image(tmp_path / "line.png")
    assert caplog.text == ""
