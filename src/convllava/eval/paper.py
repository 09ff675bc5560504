"""The figures of Tables 2 to 11 and Figure 3 of the paper (arXiv 2405.15738v1), and the benchmark of each column.

Rows that the package can train have the names of their folders in ``recipes/paper``.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PaperRow:
    """A row of a table of the paper.

    Attributes:
        label: Model, resolution or setting, as a reader of the table knows it.
        figures: Figures in the order of the table's columns; None for an empty cell.
        visual_tokens: Number of visual tokens of an image; None where it varies or is not stated.
        printed_mean: Last column as printed, a mean over the others; None in a table without one.
    """

    label: str
    figures: tuple[float | None, ...]
    visual_tokens: int | None = None
    printed_mean: float | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        columns: Name of the benchmark by the heading of its column.
        rows: Rows by name.
        notes: Notes for a comparison with it.
        mean_heading: Heading of a last column with the mean of the others; empty without one.
    """

    number: int
    title: str
    columns: dict[str, str]
    rows: dict[str, PaperRow]
    notes: tuple[str, ...] = ()
    mean_heading: str = ""

    @property
    def name(self) -> str:
        """Name of its suite, and of its folder in ``recipes/paper``."""
        return f"table{self.number}"

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks of the table."""
        return list(self.columns.values())


_FOUR = {"MMBench": "mmbench", "SEEDBench": "seedbench", "TextVQA": "textvqa", "DocVQA": "docvqa"}
"""Benchmarks of the controlled comparisons: two general ones and two of reading."""

_NOTE_OF_FOUR = "MMBench is the circular accuracy on DEV_EN, TextVQA is without OCR tokens, DocVQA is the val split."

TABLE_2 = PaperTable(
    2,
    "Vision encoders that stay frozen",
    _FOUR,
    {
        "vit-l-336": PaperRow("ViT-L 336", (66.5, 65.3, 45.5, 21.2), 576),
        "convnext-l-512": PaperRow("ConvNeXt-L 512", (64.5, 63.8, 49.3, 23.0), 256),
        "convnext-l-768": PaperRow("ConvNeXt-L 768", (63.2, 65.7, 53.7, 29.8), 576),
    },
    (_NOTE_OF_FOUR,),
)

TABLE_3 = PaperTable(
    3,
    "Vision encoders that are updated",
    _FOUR,
    {
        "vit-l-336": PaperRow("ViT-L 336", (66.8, 68.1, 50.1, 26.4), 576),
        "convnext-l-512": PaperRow("ConvNeXt-L 512", (65.5, 67.9, 55.1, 31.4), 256),
        "convnext-l-768": PaperRow("ConvNeXt-L 768", (66.5, 68.6, 60.0, 40.2), 576),
    },
    (
        _NOTE_OF_FOUR,
        "Mean improvement over Table 2: ViT-L 336 +3.2, ConvNeXt-L 512 +4.8, ConvNeXt-L 768 +5.7.",
    ),
)

IMPROVEMENTS: dict[str, tuple[float, ...]] = {
    "vit-l-336": (0.3, 2.8, 4.6, 5.2, 3.2),
    "convnext-l-512": (1.0, 4.1, 5.8, 8.4, 4.8),
    "convnext-l-768": (3.3, 2.9, 6.3, 10.4, 5.7),
}
"""Improvements of Table 3 over Table 2 as printed, by row and column, and their mean."""

TABLE_4 = PaperTable(
    4,
    "Five stages",
    _FOUR,
    {
        "768": PaperRow("ConvNeXt-L, five stages, 768", (65.3, 67.7, 54.7, 31.1), 144),
        "1024": PaperRow("ConvNeXt-L, five stages, 1024", (65.1, 68.3, 59.4, 35.8), 256),
        "1536": PaperRow("ConvNeXt-L, five stages, 1536", (64.3, 69.1, 60.7, 42.5), 576),
    },
    (_NOTE_OF_FOUR,),
)

TABLE_5 = PaperTable(
    5,
    "Benchmarks",
    {
        "MME": "mme",
        "MMB": "mmbench",
        "SEED": "seedbench",
        "RWQA": "realworldqa",
        "MMMU": "mmmu",
        "MMVet": "mmvet",
        "Text": "textvqa",
        "Doc": "docvqa",
        "POPE": "pope",
    },
    {
        "llava-1.5-13b": PaperRow("LLaVA-1.5 13B", (1531, 68.2, 68.2, 55.3, 36.4, 38.3, 48.7, 23.7, 85.9), 576),
        "vila-13b": PaperRow("VILA 13B", (1570, 70.3, None, None, None, 38.8, 54.5, 39.2, 84.2), 576),
        "llava-next-13b": PaperRow("LLaVA-NeXT 13B", (1575, 70.0, 71.9, None, 36.2, 48.4, 67.1, None, 86.7), 2880),
        "otterhd": PaperRow("OtterHD 8B", (1223, 58.3, None, None, None, 26.3, None, None, 86.0)),
        "qwen-vl-chat": PaperRow("Qwen-VL-Chat 7B", (1488, 60.6, 64.8, None, None, None, 61.5, 62.6, None), 256),
        "llava-1.5-7b": PaperRow("LLaVA-1.5 7B", (1510, 64.3, 66.2, 54.8, None, 30.5, 45.5, 21.6, 85.9), 576),
        "sharegpt4v": PaperRow("ShareGPT4V 7B", (1567, 68.8, 69.7, 56.5, None, 37.6, 51.1, 26.6, 86.0), 576),
        "vila-7b": PaperRow("VILA 7B", (1533, 68.9, None, None, None, 35.1, 53.2, 35.8, 86.3), 576),
        "llava-next-7b": PaperRow("LLaVA-NeXT 7B", (1519, 67.4, 70.2, None, 35.8, 43.9, 64.4, None, 86.5), 2880),
        "minigemini-hd": PaperRow("MiniGemini-HD 7B", (1546, 65.8, None, None, 36.8, 41.3, None, None, None), 2880),
        "768": PaperRow("ConvLLaVA 768", (1541, 68.0, 68.8, 55.9, 36.3, 44.8, 59.1, 44.8, 87.3), 144),
        "1024": PaperRow("ConvLLaVA 1024", (1553, 68.8, 69.3, 58.8, 35.1, 44.4, 62.5, 48.5, 87.7), 256),
        "1536": PaperRow("ConvLLaVA 1536", (1575, 68.7, 70.2, 59.9, 35.8, 45.9, 65.8, 59.0, 87.3), 576),
    },
    (
        "MME is the perception sum, MMB the circular accuracy on DEV_EN, Text without OCR tokens, Doc on val.",
        "The authors measured Text and Doc of LLaVA-1.5, VILA, ShareGPT4V and LLaVA-NeXT with VLMEvalKit.",
        "The paper prints Doc at 1536 as 59/65: square images, and the short side at 1536 (Table 7).",
        "POPE is assumed to be the pooled F1; the paper does not say.",
        "MMVet depends on its judge, which was GPT-4 Turbo (1106).",
    ),
)

TABLE_6 = PaperTable(
    6,
    "Referring expression comprehension",
    {
        "RefCOCO val": "refcoco-val",
        "testA": "refcoco-testA",
        "testB": "refcoco-testB",
        "RefCOCO+ val": "refcoco+-val",
        "+testA": "refcoco+-testA",
        "+testB": "refcoco+-testB",
        "RefCOCOg val": "refcocog-val",
        "g test": "refcocog-test",
    },
    {
        "llava-1.5-7b": PaperRow("LLaVA-1.5 7B", (76.3, 83.2, 67.9, 66.8, 77.0, 56.8, 70.4, 70.0), 576, 71.1),
        "llava-1.5-13b": PaperRow("LLaVA-1.5 13B", (84.0, 89.5, 77.1, 76.3, 84.3, 66.1, 78.8, 78.3), 576, 79.3),
        "768": PaperRow("ConvLLaVA 768", (84.5, 89.0, 79.2, 77.7, 84.9, 69.7, 79.8, 79.7), 144, 80.6),
        "1024": PaperRow("ConvLLaVA 1024", (85.5, 89.6, 78.8, 79.3, 86.1, 70.3, 80.6, 81.2), 256, 81.4),
        "1536": PaperRow("ConvLLaVA 1536", (86.5, 90.6, 80.5, 80.0, 86.8, 71.5, 82.0, 82.4), 576, 82.3),
    },
    ("Avg is the mean of the eight splits. For ConvLLaVA 1536 the paper prints 82.3; its eight figures average 82.5.",),
    mean_heading="Avg",
)

TABLE_7 = PaperTable(
    7,
    "Aspect ratios and higher resolution",
    {"SEED": "seedbench", "Text": "textvqa", "Doc": "docvqa"},
    {
        "pad-1536": PaperRow("(1536, 1536)", (70.2, 65.8, 59.0), 576),
        "native-1536": PaperRow("short side 1536", (68.9, 64.6, 65.0)),
        "native-1664": PaperRow("short side 1664", (67.3, 64.2, 65.7)),
    },
    ("One model (1536) with three image settings: a padded square, and two with the image's own aspect ratio.",),
)

TABLE_8 = PaperTable(
    8,
    "Vision encoders that are updated, with more data",
    _FOUR,
    {
        "vit-l-336": PaperRow("ViT-L 336", (68.1, 68.0, 49.6, 29.2), 576),
        "convnext-l-768": PaperRow("ConvNeXt-L 768", (68.5, 69.5, 62.5, 51.6), 576),
    },
    (_NOTE_OF_FOUR,),
)

TABLE_9 = PaperTable(
    9,
    "First stage that is tuned, at 768",
    _FOUR,
    {
        "from-stage-2": PaperRow("from stage 2", (65.1, 67.7, 54.8, 31.1), 144),
        "from-stage-3": PaperRow("from stage 3", (65.3, 67.7, 54.7, 31.1), 144),
        "from-stage-4": PaperRow("from stage 4", (66.2, 67.0, 52.2, 28.2), 144),
    },
    (_NOTE_OF_FOUR,),
)

TABLE_10 = PaperTable(
    10,
    "Layers in stage 5, at 768",
    _FOUR,
    {
        "3-layers": PaperRow("3 layers", (65.2, 67.9, 55.6, 29.6), 144),
        "6-layers": PaperRow("6 layers", (65.3, 67.7, 54.7, 31.1), 144),
        "9-layers": PaperRow("9 layers", (64.6, 67.9, 54.6, 30.1), 144),
    },
    (_NOTE_OF_FOUR,),
)

TABLE_11 = PaperTable(
    11,
    "Layers in stage 5, at 1536",
    _FOUR,
    {
        "3-layers": PaperRow("3 layers", (64.6, 68.4, 60.6, 38.8), 576),
        "6-layers": PaperRow("6 layers", (64.3, 69.1, 60.7, 42.5), 576),
    },
    (_NOTE_OF_FOUR,),
)

TABLES = {
    table.number: table
    for table in (TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_8, TABLE_9, TABLE_10, TABLE_11)
}
"""The tables with benchmark figures by number; Table 1 compares designs (``convllava cost --table1``)."""

FIGURE_3_FAMILIES: dict[str, tuple[str, ...]] = {
    "four stages": ("convnext-l-512", "convnext-l-768"),
    "five stages": ("five-stage-768", "five-stage-1024", "five-stage-1536"),
}
"""Lines of Figure 3, by the number of encoder stages, each with its points."""

FIGURE_3_BENCHMARKS = {"seedbench": "SEEDBench", "docvqa": "DocVQA"}
"""Panels of Figure 3: the title by benchmark."""

SAME_RUN: dict[str, str] = {
    "figure3/convnext-l-512": "table3/convnext-l-512",
    "figure3/convnext-l-768": "table3/convnext-l-768",
    **{f"figure3/five-stage-{side}": f"table4/{side}" for side in (768, 1024, 1536)},
    **{f"table6/{name}": f"table5/{name}" for name in TABLE_6.rows},
    **{f"paper/{name}": f"table5/{name}" for name in TABLE_5.rows},
    "table9/from-stage-3": "table4/768",
    "table10/6-layers": "table4/768",
    "table11/6-layers": "table4/1536",
}
"""Rows that are the same training run as another row; Table 4 and Table 5 have the first claim."""

SETTINGS_OF_TABLE_7: dict[str, dict[str, Any]] = {
    "pad-1536": {"image_aspect_ratio": "pad", "resolution": 1536},
    "native-1536": {"image_aspect_ratio": "native", "resolution": 1536},
    "native-1664": {"image_aspect_ratio": "native", "resolution": 1664},
}
"""Image settings of the rows of Table 7."""


def run_of(row: str) -> str:
    """Return the training run of a row ``SUITE/ROW``, as the row that has the first claim to it."""
    return SAME_RUN.get(row, row)


def rows_of(suite: str) -> list[str]:
    """Return the names of the rows of a suite that is a table, two tables or a figure; empty for other suites."""
    if suite == "figure3":
        return [name for family in FIGURE_3_FAMILIES.values() for name in family]
    if suite == "paper":
        return list(TABLE_5.rows)
    return next((list(table.rows) for table in TABLES.values() if table.name == suite and table is not TABLE_7), [])


def row_of(run: str) -> PaperRow:
    """Return the row ``tableN/ROW``, or the one that is the same run as a row of Figure 3.

    Raises:
        KeyError: There is no such row.
    """
    suite, name = run_of(run).split("/")
    return TABLES[int(suite.removeprefix("table"))].rows[name]
