"""Lines and fields of receipts: read from imported files, scored by edits and by ANLS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receipt_files import write_sroie
from sroie import ConversionOptions, convert_receipts
from tiny import tiny_model

from convllava.eval import LoadOptions, Prediction, Scoring, find_benchmark, run_benchmark
from convllava.eval.benchmarks import ALL, load_plugin
from convllava.inference import Generator


@pytest.fixture(autouse=True, scope="module")
def plugin(repository: Path) -> Iterator[None]:
    """Register the benchmarks for these tests."""
    before = dict(ALL)
    load_plugin(repository / "examples" / "receipts" / "benchmarks.py")
    yield
    ALL.clear()
    ALL.update(before)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("receipts")
    write_sroie(folder / "sroie", 4)
    convert_receipts(folder / "sroie", folder / "out", ConversionOptions(test=2, test_lines=3))
    return folder / "out"


def rows_of(name: str, data: Path) -> list[dict[str, Any]]:
    questions = find_benchmark(name).load(data, LoadOptions())
    assert questions.warnings == []
    return [questions[index].row for index in range(len(questions))]


def answered(rows: list[dict[str, Any]], predictions: list[str]) -> list[Prediction]:
    return [Prediction(str(row["index"]), row, text) for row, text in zip(rows, predictions, strict=True)]


def test_lines_count_edits_without_case() -> None:
    rows = [{"index": "1", "answer": "TOTAL  12.50"}, {"index": "2", "answer": "CASH"}]
    outcome = find_benchmark("receipts-lines").outcome(answered(rows, ["Total 12.60", ""]), Scoring())
    assert outcome.value == pytest.approx((1 + 4) / (11 + 4))
    assert outcome.figures["character error rate with case"] == pytest.approx((1 + 4 + 4) / 15)
    assert [verdict.credit for verdict in outcome.verdicts] == [pytest.approx(10 / 11), 0.0]


def test_an_error_counts_as_an_empty_answer() -> None:
    failed = Prediction("1", {"answer": "CASH"}, "", error="too long")
    assert find_benchmark("receipts-lines").outcome([failed], Scoring()).value == 1.0


def test_fields_have_categories_and_the_total_is_one(imported: Path) -> None:
    fields, totals = rows_of("receipts-fields", imported), rows_of("receipts-total", imported)
    assert totals == [row for row in fields if row["field"] == "total"]
    assert len(totals) == 2
    said = [row["answer"] if row["field"] == "total" else "x" * 40 for row in fields]
    outcome = find_benchmark("receipts-fields").outcome(answered(fields, said), Scoring())
    assert outcome.per_category["total"] == 1.0
    assert outcome.per_category["date"] == 0.0
    assert outcome.value == pytest.approx(2 / len(fields))


@pytest.mark.parametrize("name", ["receipts-lines", "receipts-total", "receipts-fields"])
def test_a_model_is_asked(name: str, imported: Path) -> None:
    score = run_benchmark(Generator(*tiny_model(), max_batch=4), name, data=imported, limit=1)
    assert (score.samples, score.errors) == (1, 0)
    assert score.value >= 0


def test_a_file_is_known_by_its_name() -> None:
    assert find_benchmark("receipts_fields").name == "receipts-fields"
    assert find_benchmark("receipts_lines").name == "receipts-lines"


def test_missing_data_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no receipts_fields.jsonl in .*import_sroie.py SOURCE FOLDER"):
        find_benchmark("receipts-total").load(tmp_path, LoadOptions())


def test_lines_of_one_receipt_are_drawn_together() -> None:
    benchmark = find_benchmark("receipts-lines")
    rows = [{"index": f"X51005/{number:03d}", "answer": "CASH"} for number in (1, 7)]
    assert [benchmark.shared_by(one) for one in answered(rows, ["CASH", "CASH"])] == [{"receipts": ["X51005"]}] * 2
