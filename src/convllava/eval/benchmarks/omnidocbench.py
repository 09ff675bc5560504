"""OmniDocBench's text part (arXiv 2412.07626): a page as Markdown, by edit distance and reading order.

The answer is cut into blocks at blank lines, without tables, images and displayed formulas. Each block of the page is
matched with one block of the answer, so that the sum of their normalized edit distances is least (``simple_match`` of
the published script). Captions, headers, footers and page numbers are matched but not scored. The figure of a page is
its edits over the length of the longer text of each pair, and the benchmark's the mean over pages; lower is better.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmark import Benchmark, LoadOptions
from ..metrics import edit_distance
from ..outcome import Outcome, Prediction, Row, Scoring, Verdict, failed_verdict, mean_outcome, ratio
from ..prompts import PromptPart, PromptProfile, images_first
from ..table import Table, read_rows

READ_PAGE = (
    "Convert the page to Markdown: all text in reading order, formulas in LaTeX, tables in HTML, blocks separated by "
    "blank lines. Leave out images. Write nothing else."
)

_TEXTS = ("text_block", "title", "code_txt", "code_txt_caption", "reference")
_UNSCORED = (
    *("equation_caption", "figure_caption", "figure_footnote", "table_caption"),
    *("table_footnote", "code_algorithm", "code_algorithm_caption", "header", "footer", "page_footnote", "page_number"),
)
"""Kinds of blocks that are matched, so that a model may read them, but do not count."""

_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_FENCE = re.compile(r"^```(?:markdown)?[ \t]*$", re.MULTILINE)
_TABLE = re.compile(r"<table.*?</table>|\\begin\{tabular\}.*?\\end\{tabular\}", re.DOTALL)
_TABLE_LINE = re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)
_FORMULA = re.compile(r"\$\$.*?\$\$|\\\[.*?\\\]", re.DOTALL)
_NO_WORD = re.compile(r"[^\w]")


@dataclass(frozen=True)
class Block:
    """A block of text of a page.

    Attributes:
        text: The text, without all but letters, digits and underscores.
        order: Position in the reading order; 0 if it has none.
        is_scored: Whether it counts.
    """

    text: str
    order: int
    is_scored: bool


class OmniDocBench(Benchmark):
    """Pages of papers, books, slides, newspapers and notes in English and Chinese."""

    name = "omnidocbench"
    title = "OmniDocBench text"
    file = "OmniDocBench"
    hub = "opendatalab/OmniDocBench"
    url = "OmniDocBench.json with the folder images from opendatalab/OmniDocBench on the hub"
    columns = ("answer",)
    known_md5 = frozenset({"0fa5ccf31e682e219cb9ca83da741a59"})
    metric = "normalized edit distance"
    higher_is_better = False

    def paths(self, data: Path) -> list[Path]:
        candidates = [data / f"{self.file}.json", data / self.file / f"{self.file}.json"]
        return super().paths(data) or [path for path in candidates if path.is_file()][:1]

    def read(self, data: Path) -> Table:
        """Return one row for each page; the row has the JSON of its annotations, as VLMEvalKit's TSV."""
        paths = self.paths(data)
        if not paths or paths[0].suffix != ".json":
            return super().read(data)
        content = paths[0].read_bytes()
        rows = [{"image": page["page_info"]["image_path"], "answer": json.dumps(page)} for page in json.loads(content)]
        folders = [paths[0].parent / "images", paths[0].parent, data]
        return read_rows(paths[0], content, enumerate(rows, start=1), self.columns, folders)

    def includes(self, row: Row) -> bool:
        """Return whether a page has text, as the published script leaves out pages without."""
        return bool(blocks_of_page(json.loads(row["answer"])))

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(READ_PAGE, num_images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return 4096

    def categories(self, row: Row) -> Sequence[str]:
        attributes = json.loads(row["answer"]).get("page_info", {}).get("page_attribute", {})
        return [str(attributes[key]) for key in ("data_source", "language") if attributes.get(key)]

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        distance, _ = page_distances(prediction.text, json.loads(prediction.row["answer"]))
        return Verdict(1 - distance, None, resolved=bool(prediction.text.strip()))

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        verdicts = self.verdicts(predictions, scoring)
        pages = [json.loads(prediction.row["answer"]) for prediction in predictions]
        found = [page_distances(each.text, page) for each, page in zip(predictions, pages, strict=True)]
        outcome = mean_outcome(predictions, verdicts, self.categories, lambda sums: 1 - ratio(sums))
        orders = [order for _, order in found if order is not None]
        figures = {"reading_order_edit_distance": float(np.mean(orders)) if orders else None}
        return replace(outcome, figures=figures)


def page_distances(prediction: str, page: dict[str, Any]) -> tuple[float, float | None]:
    """Return the normalized edit distances of a page's text and of its reading order.

    The second is None for a page whose blocks have no order.
    """
    truth, said = blocks_of_page(page), blocks_of_answer(prediction)
    pairs = _matched([block.text for block in truth], said)
    edits = length = 0
    for number, block in enumerate(truth):
        if block.is_scored:
            other = said[pairs[number]] if number in pairs else ""
            edits += edit_distance(other, block.text)
            length += max(len(other), len(block.text))
    rest = "".join(text for number, text in enumerate(said) if number not in pairs.values())
    edits, length = edits + len(rest), length + len(rest)
    return (edits / length if length else 0.0), _order_distance(truth, pairs)


def _order_distance(truth: Sequence[Block], pairs: dict[int, int]) -> float | None:
    """Return the edit distance of the orders of blocks as they were written, over their number."""
    scored = [(number, block.order) for number, block in enumerate(truth) if block.is_scored and block.order]
    written = sorted((pairs[number], order) for number, order in scored if number in pairs)
    expected = sorted(order for _, order in scored)
    if not expected:
        return None
    return edit_distance([order for _, order in written], expected) / len(expected)


def blocks_of_page(page: dict[str, Any]) -> list[Block]:
    """Return the blocks of text of an annotated page in reading order; parts of a cut paragraph are one."""
    elements = {element["anno_id"]: element for element in page["layout_dets"]}
    joined: list[dict[str, Any]] = []
    for group in _cut_paragraphs(page):
        parts = sorted((elements.pop(name) for name in group if name in elements), key=_order)
        if parts:
            joined.append({**parts[0], "text": "".join(str(part.get("text") or "") for part in parts)})
    found = [*elements.values(), *joined]
    texts = [element for element in found if element["category_type"] in (*_TEXTS, *_UNSCORED)]
    blocks = [
        Block(
            clean_text(str(element.get("text") or "")),
            _order(element),
            element["category_type"] in _TEXTS,
        )
        for element in sorted(texts, key=_order)
    ]
    return [block for block in blocks if block.text]


def _order(element: dict[str, Any]) -> int:
    return int(element.get("order") or 0)


def _cut_paragraphs(page: dict[str, Any]) -> list[list[Any]]:
    """Return the ids of the elements of each paragraph that a column or a figure cuts."""
    groups: list[list[Any]] = []
    for relation in page.get("extra", {}).get("relation", []):
        if relation.get("relation_type") == "truncated":
            ends = [relation["source_anno_id"], relation["target_anno_id"]]
            group = next((group for group in groups if not set(ends).isdisjoint(group)), None)
            if group is None:
                groups.append(ends)
            else:
                group += [end for end in ends if end not in group]
    return groups


def blocks_of_answer(text: str) -> list[str]:
    """Return the cleaned blocks of text of an answer in Markdown, without tables, images and displayed formulas."""
    content = _FENCE.sub("", _IMAGE.sub("", text))
    content = _FORMULA.sub("\n\n", _TABLE_LINE.sub("\n\n", _TABLE.sub("\n\n", content)))
    blocks = content.split("\n\n")
    if len([block for block in blocks if block.strip()]) == 1:
        blocks = content.split("\n")
    return [cleaned for block in blocks if (cleaned := clean_text(block))]


def clean_text(text: str) -> str:
    """Return the letters, digits and underscores of a text, of any language."""
    return _NO_WORD.sub("", text)


def _matched(truth: Sequence[str], said: Sequence[str]) -> dict[int, int]:
    """Return the block of the answer for blocks of the page, such that the sum of their distances is least."""
    if not truth or not said:
        return {}
    costs = np.array([[edit_distance(one, other) / max(len(one), len(other)) for other in said] for one in truth])
    if len(truth) <= len(said):
        return dict(enumerate(assignment(costs)))
    return {number: place for place, number in enumerate(assignment(costs.T))}


def assignment(costs: np.ndarray) -> list[int]:
    """Return the column of each row of a cost matrix (rows, columns >= rows) of the least sum (Hungarian method)."""
    rows, columns = costs.shape
    of_row, of_column = np.zeros(rows + 1), np.zeros(columns + 1)  # potentials; 0 is a row and a column to begin with
    match = np.zeros(columns + 1, dtype=int)
    for row in range(1, rows + 1):
        match[0], column = row, 0
        least, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, dtype=int)
        used = np.zeros(columns + 1, dtype=bool)
        while match[column]:
            used[column] = True
            reduced = costs[match[column] - 1] - of_row[match[column]] - of_column[1:]
            is_better = ~used[1:] & (reduced < least[1:])
            least[1:][is_better], before[1:][is_better] = reduced[is_better], column
            following = int(np.where(used[1:], np.inf, least[1:]).argmin()) + 1
            delta = least[following]
            of_row[match[used]] += delta
            of_column[used] -= delta
            least[~used] -= delta
            column = following
        while column:
            match[column] = match[before[column]]
            column = int(before[column])
    columns_of_rows = {int(match[column]) - 1: column - 1 for column in range(1, columns + 1) if match[column]}
    return [columns_of_rows[row] for row in range(rows)]
