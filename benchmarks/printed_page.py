"""Character error rates on a page in a type face that training did not use, photographed from above.

python benchmarks/printed_page.py                                  # two texts in three held-out faces
python benchmarks/printed_page.py --text my.txt --font MyFace.ttf  # other texts and faces
python benchmarks/printed_page.py --save runs/printed              # keeps the images and the answers

The built-in texts share no word with the lists that the generator draws from, and training uses none of the faces.
The photograph has slight blur, light that falls off to one corner, sensor noise and JPEG artifacts. Pages are the same
at every run. Each is read in three ways, and the character error rate (edits per true character, white space as one
blank) of each is printed: the page at once, line by line, and in pieces of a few visual tokens, cut at blanks, which
suits a model trained on short lines. Lines and pieces are found in the image.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageStat

from convllava.eval.metrics import edit_distance
from convllava.synthetic.fonts import FONT_DIRECTORY

FACES = tuple(
    str(FONT_DIRECTORY / f"{name}.ttf")
    for name in ("work-sans-regular", "libre-baskerville-regular", "courier-prime-regular")
)

TEXTS = {
    "minerals": """QUARRY BULLETIN No. 61
Feldspar, biotite, hornblende
Zircon xenoliths: 38 grams
Pyroxene fluorescence 412.7 nm
Gneiss outcrops beyond Tromso
Magnetite assay pending
Curator: Ingeborg Quist
Obsidian flakes, Lipari, 1994""",
    "orchestra": """Rehearsal schedule
Oboe sextet, rehearsed 18:45
Bassoonists: Okonkwo, Vuillaume
Timpani overhaul: 1,275.50
Libretto proofreading unfinished
Venue: Gewandhaus, Leipzig
Encore: Sibelius, Valse triste
Tickets 26 / 34 / 52 crowns""",
}

TOKEN_SIDE = 64
"""Side of a visual token, in pixels."""

_SHRUNK = 1.5
"""Width of a piece, relative to its visual tokens, above which it is scaled down; at this factor letters have the
smallest size that the bundled model was trained with."""

Span = tuple[int, int]
"""First pixel, and the pixel after the last."""

Read = Callable[[Sequence[Image.Image], str], list[str]]
"""Function from images and a question about each to the answers."""


def print_page(text: str, face: str, font_size: int) -> Image.Image:
    """Return an image (mode L) of a text in black on white, line by line."""
    try:
        font = ImageFont.truetype(face, font_size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(f"no type face {face} ({error}): give the path of a font file") from error
    lines = text.splitlines()
    margin, leading = 2 * font_size, round(1.6 * font_size)
    width = round(max(font.getlength(line) for line in lines)) + 2 * margin
    page = Image.new("L", (width, leading * len(lines) + 2 * margin), 250)
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        pen.text((margin, margin + number * leading), line, fill=20, font=font)
    return page


def photograph(page: Image.Image) -> Image.Image:
    """Return a printed page (mode L) as a camera sees it from straight above, in RGB; always the same."""
    down, along = np.mgrid[0 : page.height, 0 : page.width].astype(np.float32)
    light = 1 - 0.3 * (0.6 * along / page.width + 0.4 * down / page.height)
    warm = np.array([1.0, 0.98, 0.93], dtype=np.float32)
    blurred = np.asarray(page.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
    noise = np.random.Generator(np.random.PCG64(1)).normal(0, 3, (page.height, page.width, 1))
    pixels = (blurred * light)[:, :, None] * warm + noise
    stream = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=75)
    return Image.open(stream, formats=("JPEG",)).convert("RGB")


def ink_of(image: Image.Image) -> np.ndarray:
    """Return booleans of shape (height, width): whether a pixel is darker than three quarters of its surroundings."""
    grey = image.convert("L")
    around = np.asarray(grey.filter(ImageFilter.GaussianBlur(24)), dtype=np.float32)
    return np.asarray(grey, dtype=np.float32) < 0.75 * around


def spans_of(marks: np.ndarray, gap: int) -> list[Span]:
    """Return the runs of True, joined across gaps of at most ``gap`` pixels."""
    spans: list[Span] = []
    for place in np.flatnonzero(marks).tolist():
        if spans and place - spans[-1][1] <= gap:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


def rows_of(ink: np.ndarray) -> list[Span]:
    """Return the lines of text from the top, as runs of pixel rows."""
    return [row for row in spans_of(ink.any(axis=1), gap=3) if row[1] - row[0] >= 6]


def cut_row(letters: list[Span], most: float) -> list[list[Span]]:
    """Cut a line of letters into pieces of limited width, each at the widest gap within reach."""
    start = letters[0][0]
    if letters[-1][1] - start <= most or len(letters) == 1:
        return [letters]
    reach = [k for k in range(1, len(letters)) if letters[k - 1][1] - start <= most] or [1]
    late = [k for k in reach if letters[k - 1][1] - start >= most / 3] or reach
    place = max(late, key=lambda k: letters[k][0] - letters[k - 1][1])
    return [letters[:place], *cut_row(letters[place:], most)]


def pieces_of(image: Image.Image, tokens: int | None) -> list[list[Image.Image]]:
    """Return each line as images 64 pixels high: one, or several of at most ``tokens`` times 64 pixels.

    A piece may be somewhat wider before it is scaled to fit, so that cuts fall between words.
    """
    ink = ink_of(image)
    rows = []
    for top, bottom in rows_of(ink):
        margin = 0.35 * (bottom - top)  # ink is three fifths of the height
        most = tokens * _SHRUNK * (bottom - top + 2 * margin) - 2 * margin if tokens else math.inf
        parts = cut_row(spans_of(ink[top:bottom].any(axis=0), gap=1), most)
        lefts = [part[0][0] for part in parts] + [image.width]
        rights = [0] + [part[-1][1] for part in parts]
        boxes = []
        for number in range(len(parts)):  # no letter of a neighbor comes along
            left = max(lefts[number] - margin, (rights[number] + lefts[number]) / 2)
            right = min(rights[number + 1] + margin, (rights[number + 1] + lefts[number + 1]) / 2)
            boxes.append((round(left), max(0, round(top - margin)), round(right), round(bottom + margin)))
        rows.append([fit(image.crop(box), tokens) for box in boxes])
    return rows


def fit(cut: Image.Image, tokens: int | None) -> Image.Image:
    """Scale a piece to a height of 64 pixels, or less if it is wider than ``tokens`` allow; fill up with paper."""
    scale = TOKEN_SIDE / cut.height
    if tokens:
        scale = min(scale, tokens * TOKEN_SIDE / cut.width)
    width, height = (max(1, round(side * scale)) for side in cut.size)
    paper = tuple(int(value) for value in ImageStat.Stat(cut).median)
    piece = Image.new("RGB", (TOKEN_SIDE * math.ceil(width / TOKEN_SIDE), TOKEN_SIDE), paper)
    piece.paste(cut.resize((width, height), Image.Resampling.BICUBIC), (0, (TOKEN_SIDE - height) // 2))
    return piece


@dataclass
class Reading:
    """Text read from one page in one way."""

    page: str
    face: str
    way: str
    text: str
    edits: int
    characters: int


def read_page(image: Image.Image, read: Read, tokens: int) -> dict[str, str]:
    """Read a page in each way."""
    (whole,) = read([image], "Transcribe the page.")
    found = {"page": whole}
    for way, most in (("rows", None), ("pieces", tokens)):
        rows = pieces_of(image, most)
        answers = iter(read([piece for row in rows for piece in row], "Read the text."))
        found[way] = "\n".join(" ".join(next(answers) for _ in row) for row in rows)
    return found


def judge(page: str, face: str, truth: str, found: dict[str, str]) -> list[Reading]:
    """Count the edits of each way of reading."""
    plain = " ".join(truth.split())
    return [
        Reading(page, face, way, text, edit_distance(" ".join(text.split()), plain), len(plain))
        for way, text in found.items()
    ]


def reader(model: str, batch_size: int) -> Read:
    """Load a model and return a function that asks it."""
    from convllava.inference import Generator, Request, load_pretrained

    generator = Generator(*load_pretrained(model), max_batch=batch_size)

    def read(images: Sequence[Image.Image], question: str) -> list[str]:
        answers = generator.generate([Request.of_question(question, (image,)) for image in images])
        return [answer.text for answer in answers]

    return read


def texts_of(paths: Sequence[Path]) -> dict[str, str]:
    """Return the texts to print, from files or the built-in ones."""
    if not paths:
        return TEXTS
    texts = {path.stem: path.read_text(encoding="utf-8").strip("\n") for path in paths}
    empty = [name for name, text in texts.items() if not text.strip()]
    if empty:
        raise ValueError(f"the text {empty[0]} is empty: give a file with a line of text for each printed row")
    return texts


def summary(readings: Sequence[Reading]) -> str:
    """Return a table with a row for each page and one for all, and a column for each way of reading."""
    ways = list(dict.fromkeys(own.way for own in readings))
    lines = [f"| page | face | {' | '.join(ways)} |", "|---|---|" + "---|" * len(ways)]
    for page, face in dict.fromkeys((own.page, own.face) for own in readings):
        lines.append(_table_row(page, face, [own for own in readings if (own.page, own.face) == (page, face)], ways))
    lines.append(_table_row("all", "", readings, ways))
    return "\n".join(lines)


def _table_row(page: str, face: str, readings: Sequence[Reading], ways: Sequence[str]) -> str:
    cells = []
    for way in ways:
        own = [reading for reading in readings if reading.way == way]
        cells.append(f"{sum(one.edits for one in own) / sum(one.characters for one in own):.3f}")
    return f"| {page} | {face} | {' | '.join(cells)} |"


def run(arguments: argparse.Namespace) -> list[Reading]:
    """Typeset, photograph and read every text in every face."""
    texts = texts_of(arguments.text)
    faces = arguments.font or FACES
    pages = {
        (name, face): photograph(print_page(text, face, arguments.size))
        for name, text in texts.items()
        for face in faces
    }
    read = reader(arguments.model, arguments.batch_size)
    readings: list[Reading] = []
    for (name, face), image in pages.items():
        readings += judge(name, Path(face).stem, texts[name], read_page(image, read, arguments.tokens))
        if arguments.save:
            arguments.save.mkdir(parents=True, exist_ok=True)
            image.save(arguments.save / f"{name}-{Path(face).stem}.png")
    if arguments.save:
        content: list[dict[str, Any]] = [asdict(own) for own in readings]
        (arguments.save / "read.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return readings


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, a directory or a hub id")
    parser.add_argument("--text", action="append", type=Path, default=[], help="a text file of your own; repeatable")
    parser.add_argument("--font", action="append", default=[], help="a font file or the name of one; repeatable")
    parser.add_argument("--size", type=int, default=36, help="type size in pixels per em (default: 36)")
    parser.add_argument("--tokens", type=int, default=3, help="maximum width of a piece, in visual tokens (default: 3)")
    parser.add_argument("--batch-size", type=int, default=16, help="answers at a time")
    parser.add_argument("--save", type=Path, help="folder for the images and the answers")
    arguments = parser.parse_args()
    if arguments.size < 8 or arguments.tokens < 1:
        parser.error("--size is at least 8 and --tokens at least 1")
    try:
        print(summary(run(arguments)))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
