"""Tables 5, 6 and 7 of the paper (arXiv 2405.15738v1) and the benchmark of each of their columns."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        columns: Name of the benchmark by the heading of its column.
        rows: Figures by the name of the row, in the order of the columns; None for an empty cell.
        notes: Notes for a comparison with it.
    """

    number: int
    title: str
    columns: dict[str, str]
    rows: dict[str, tuple[float | None, ...]]
    notes: tuple[str, ...] = ()

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks of the table."""
        return list(self.columns.values())


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
        "ConvLLaVA 768": (1541, 68.0, 68.8, 55.9, 36.3, 44.8, 59.1, 44.8, 87.3),
        "ConvLLaVA 1024": (1553, 68.8, 69.3, 58.8, 35.1, 44.4, 62.5, 48.5, 87.7),
        "ConvLLaVA 1536": (1575, 68.7, 70.2, 59.9, 35.8, 45.9, 65.8, 59.0, 87.3),
    },
    (
        "MME is the perception sum, MMB the circular accuracy on DEV_EN, Text without OCR tokens, Doc on val.",
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
        "ConvLLaVA 768": (84.5, 89.0, 79.2, 77.7, 84.9, 69.7, 79.8, 79.7),
        "ConvLLaVA 1024": (85.5, 89.6, 78.8, 79.3, 86.1, 70.3, 80.6, 81.2),
        "ConvLLaVA 1536": (86.5, 90.6, 80.5, 80.0, 86.8, 71.5, 82.0, 82.4),
    },
    ("Avg is the mean of the eight splits. For ConvLLaVA 1536 the paper prints 82.3; its eight figures average 82.5.",),
)

TABLE_7 = PaperTable(
    7,
    "Aspect ratios and higher resolution",
    {"SEED": "seedbench", "Text": "textvqa", "Doc": "docvqa"},
    {
        "(1536, 1536)": (70.2, 65.8, 59.0),
        "short side 1536": (68.9, 64.6, 65.0),
        "short side 1664": (67.3, 64.2, 65.7),
    },
    ("One model (1536) with three image settings: a padded square, and two with the image's own aspect ratio.",),
)

TABLES = {table.number: table for table in (TABLE_5, TABLE_6, TABLE_7)}

PRINTED_AVERAGES = {"ConvLLaVA 768": 80.6, "ConvLLaVA 1024": 81.4, "ConvLLaVA 1536": 82.3}
"""Last column of Table 6 as printed."""

SQUARE = "pad-1536"
SETTINGS_OF_TABLE_7: dict[str, dict[str, Any]] = {
    SQUARE: {"image_aspect_ratio": "pad", "resolution": 1536},
    "native-1536": {"image_aspect_ratio": "native", "resolution": 1536},
    "native-1664": {"image_aspect_ratio": "native", "resolution": 1664},
}
"""Image settings in the order of the rows of Table 7."""
