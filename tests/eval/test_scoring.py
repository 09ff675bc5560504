"""Scores, comparisons and tables from predictions alone."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convllava.eval import Scoring, find_benchmark
from convllava.eval.compare import compare
from convllava.eval.outcome import (
    bootstrap_interval,
    cluster_labels,
    paired_interval,
    paired_test,
    percent,
    sums_of_clusters,
)
from convllava.eval.paper import SETTINGS_OF_TABLE_7, TABLE_6
from convllava.eval.scoring import score_file
from convllava.eval.tables import as_csv, as_latex, as_markdown, make_tables, read_scores

ROW = {"question": "Which?", "A": "cat", "B": "dog", "answer": "A", "category": "c"}
ROWS = [{**ROW, "index": number} for number in range(40)]


def answered(right: int) -> list[tuple[dict[str, Any], str]]:
    return [(row, "A" if number < right else "B") for number, row in enumerate(ROWS)]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=25)
def test_an_interval_contains_the_figure(right: list[bool]) -> None:
    columns = np.array([[own, 1] for own in right], dtype=float)
    low, high = bootstrap_interval(columns, percent, replicates=200)
    assert 0 <= low <= 100 * sum(right) / len(right) <= high <= 100
    assert paired_interval(columns, columns, percent, replicates=50) == (0, 0)


def test_an_interval_is_close_to_the_binomial_one() -> None:
    columns = np.array([[number < 300, 1] for number in range(1000)], dtype=float)
    low, high = bootstrap_interval(columns, percent)
    deviation = 100 * (0.3 * 0.7 / 1000) ** 0.5
    assert low == pytest.approx(30 - 1.96 * deviation, abs=0.4)
    assert high == pytest.approx(30 + 1.96 * deviation, abs=0.4)


def by_image(num_images: int, questions: int) -> list[tuple[dict[str, Any], str]]:
    """Return answers to questions about images; all of an image are right or all are wrong."""
    return [
        ({**ROW, "index": image * questions + number, "image_path": f"{image}.png"}, "A" if image % 2 else "B")
        for image in range(num_images)
        for number in range(questions)
    ]


def test_questions_about_one_image_are_drawn_together(write_predictions: Any, tmp_path: Path) -> None:
    """Ten images with twenty questions each are ten independent observations, not two hundred."""
    score = score_file(write_predictions(tmp_path, "seedbench", by_image(10, 20))).score
    columns = np.array([[image % 2, 1] for image in range(10)], dtype=float)
    assert score.interval == bootstrap_interval(columns, percent)
    assert score.interval[1] - score.interval[0] == pytest.approx(60)
    assert score.units == {"kind": "images", "number": 10}


def test_a_comparison_draws_images(write_predictions: Any, tmp_path: Path) -> None:
    """Twenty more right answers about one of ten images are no clear difference."""
    rows = by_image(10, 20)
    better = [(row, "A" if row["image_path"] == "0.png" else text) for row, text in rows]
    first = write_predictions(tmp_path / "a", "seedbench", rows)
    second = write_predictions(tmp_path / "b", "seedbench", better, model="b")
    found = compare(first, second)
    assert found.difference == pytest.approx(10)
    assert found.interval[0] == 0 and not found.is_clear


def test_predictions_that_do_not_name_their_images_are_scored_with_a_warning(
    write_predictions: Any, tmp_path: Path
) -> None:
    path = write_predictions(tmp_path, "seedbench", answered(20))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "images"}) + "\n" for line in lines))
    score = score_file(path).score
    assert score.units == {"kind": "samples", "number": 40}
    assert "do not say which questions share an image" in score.warnings[0]


def test_rotations_and_several_images_join_clusters() -> None:
    shared: list[dict[str, list[str]]] = [{"images": names} for names in (["1"], ["2"], ["2", "3"], ["3"], ["4"])]
    labels = cluster_labels(["a", "a", "b", "c", "d"], shared)
    assert labels == {"a": 0, "b": 0, "c": 0, "d": 1}
    columns = np.array([[1.0, 1], [0, 1], [1, 1], [1, 1]])
    assert sums_of_clusters(["a", "b", "c", "d"], columns, labels).tolist() == [[2, 3], [1, 1]]


def test_units_that_no_prediction_has_are_an_error(
    write_predictions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_predictions(tmp_path, "seedbench", answered(20))
    monkeypatch.setattr(type(find_benchmark("seedbench")), "unit_of", lambda self, prediction: "all")
    with pytest.raises(ValueError, match=r"seedbench: Outcome.units has 40 units .* override unit_of"):
        score_file(path)


def test_a_score_counts_unresolved_empty_and_failed_answers(write_predictions: Any, tmp_path: Path) -> None:
    predictions = [(ROWS[0], "A"), (ROWS[1], "neither"), (ROWS[2], ""), (ROWS[3], "")]
    path = write_predictions(tmp_path, "seedbench", predictions, errors={3: "too long"})
    score = score_file(path).score
    assert (score.samples, score.unresolved, score.empty, score.errors) == (4, 2, 1, 1)
    assert score.value == 25
    assert score.scoring["judge"] == "none (exact matching)"


def test_scoring_again_under_another_profile(write_predictions: Any, tmp_path: Path) -> None:
    path = write_predictions(tmp_path, "seedbench", [({**ROW, "index": 1}, "A cat is what I can see there")])
    assert score_file(path).score.value == 100
    assert score_file(path, Scoring("current")).score.value == 0


def test_predictions_without_a_protocol_are_scored_with_a_warning(write_predictions: Any, tmp_path: Path) -> None:
    path = write_predictions(tmp_path, "seedbench", answered(10))
    (tmp_path / "seedbench.protocol.json").unlink()
    score = score_file(path).score
    assert score.value == 25
    assert "no protocol file" in score.warnings[0]


def test_mixed_and_empty_files_are_errors(write_predictions: Any, tmp_path: Path) -> None:
    path = write_predictions(tmp_path, "seedbench", answered(1), model="a")
    other = write_predictions(tmp_path / "b", "seedbench", answered(1), model="b")
    path.write_text(path.read_text() + other.read_text())
    with pytest.raises(ValueError, match=r"mixes predictions \(1 benchmarks, 2 models or protocols\)"):
        score_file(path)
    path.write_text("")
    with pytest.raises(ValueError, match="holds no predictions"):
        score_file(path)
    path.write_text('{"sample_id": "1"}\n')
    with pytest.raises(ValueError, match="line 1 is not a prediction: it has no benchmark, prediction, error, row"):
        score_file(path)


def test_comparison_is_paired(write_predictions: Any, tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", "seedbench", answered(20), model="a")
    second = write_predictions(tmp_path / "b", "seedbench", answered(32), model="b")
    found = compare(first, second)
    assert found.difference == pytest.approx(30)
    assert found.is_clear and 12 < found.interval[0] < found.interval[1] < 48
    assert [change.sample_id for change in found.changes] == [str(number) for number in range(20, 32)]
    assert found.changes[0].predictions == ("B", "A")
    same = compare(first, first)
    assert (same.difference, same.interval, same.changes, same.is_clear) == (0, (0, 0), [], False)
    assert same.p_value == 1 and found.p_value < 0.001  # 12 changes, all for the better: 2 ** -11


def test_the_permutation_test_gives_the_exact_value() -> None:
    first = np.array([[0, 1]] * 5 + [[1, 1]] * 4, dtype=float)
    second = np.array([[1, 1]] * 9, dtype=float)
    assert paired_test(first, second, percent) == pytest.approx(2 / 2**5, abs=0.01)
    second[0, 0] = 0
    assert paired_test(first, second, percent) == pytest.approx(2 / 2**4, abs=0.01)


def test_different_protocols_are_not_compared(write_predictions: Any, tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a", "seedbench", answered(20), prompts="paper")
    second = write_predictions(tmp_path / "b", "seedbench", answered(20), prompts="llava")
    with pytest.raises(ValueError, match="have different protocols: prompts: 'paper' / 'llava'"):
        compare(first, second)
    assert compare(first, second, allowed=["prompts"]).difference == 0
    other = write_predictions(tmp_path / "c", "seedbench", answered(20)[:39], prompts="paper", data={"questions": 40})
    third = write_predictions(tmp_path / "d", "seedbench", answered(20), prompts="paper", data={"questions": 40})
    with pytest.raises(ValueError, match="1 only in the first, 0 only in the second"):
        compare(third, other)


def test_tables_with_the_papers_figures(write_predictions: Any, tmp_path: Path) -> None:
    score_file(write_predictions(tmp_path / "m", "seedbench", answered(20), model="mine")).score.write(tmp_path / "m")
    native = {"image": {"image_aspect_ratio": "native", "resolution": 1664}}
    path = write_predictions(tmp_path / "n", "seedbench", answered(30), model="mine", **native)
    score_file(path).score.write(tmp_path / "n")
    for split in TABLE_6.benchmarks:
        row = {"sent": "x", "bbox": [0, 0, 10, 10], "width": 10, "height": 10}
        folder = tmp_path / "m"
        score_file(write_predictions(folder, split, [(row, "[0, 0, 1, 1]")], model="mine")).score.write(folder)
    laid = make_tables(read_scores(tmp_path))
    assert [table.title[:7] for table in laid] == ["Table 5", "Table 6", "Table 7"]
    text = as_markdown(laid)
    assert "| ConvLLaVA 1536 | paper | 1575 | 68.7 | 70.2 | 59.9 | 35.8 | 45.9 | 65.8 | 59.0 | 87.3 |" in text
    assert "82.3 [82.5]" in text and "the paper prints 82.3; its eight figures average 82.5" in text
    assert "| mine, short side 1664 | measured | 75.0 (" in text
    assert "| mine (m) | measured |" in text and "| 100.0 |" in text
    assert r"\toprule" in as_latex(laid) and r"95 \%" not in as_latex(laid)
    assert as_csv(laid).splitlines()[0] == "Table 5: Benchmarks"


def test_scores_of_table_7_are_no_rows_of_table_5(write_predictions: Any, tmp_path: Path) -> None:
    for folder, image in {".": {}, **SETTINGS_OF_TABLE_7}.items():
        path = write_predictions(tmp_path / folder, "seedbench", answered(20), model="mine", image=image)
        score_file(path).score.write(tmp_path / folder)
    table_5, table_7 = make_tables(read_scores(tmp_path))
    assert [row[0] for row in table_5.rows if row[1] == "measured"] == ["mine"]
    assert len([row for row in table_7.rows if row[1] == "measured"]) == 3
    (tmp_path / "seedbench.score.json").unlink()
    assert [table.title[:7] for table in make_tables(read_scores(tmp_path))] == ["Table 7"]


def test_a_folder_without_scores(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no score files"):
        read_scores(tmp_path)
    (tmp_path / "x.score.json").write_text(json.dumps([]))
    with pytest.raises(ValueError, match="is not a score file"):
        read_scores(tmp_path)


def replaced(content: dict[str, Any], keys: str, value: Any) -> dict[str, Any]:
    """Return a copy of JSON content with another value at a dotted path."""
    copied: dict[str, Any] = json.loads(json.dumps(content))
    *outer, last = keys.split(".")
    inner = copied
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return copied


@pytest.mark.parametrize("value", [None, 0, "x", [], {}, [None], {"a": 1}, True])
@pytest.mark.parametrize(
    "keys", ["sample_id", "row", "prediction", "error", "images", "model_fingerprint", "benchmark", "row.answer"]
)
def test_a_changed_prediction_is_scored_or_named(write_predictions: Any, tmp_path: Path, keys: str, value: Any) -> None:
    path = write_predictions(tmp_path, "seedbench", answered(20))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0] = replaced(lines[0], keys, value)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with contextlib.suppress(ValueError):
        score_file(path)


@pytest.mark.parametrize("value", [None, 0, "x", [], {}, [None], {"a": 1}, True])
@pytest.mark.parametrize("keys", ["protocol", "protocol.data", "protocol.data.questions", "model", "warnings"])
def test_a_damaged_protocol_file_is_named(write_predictions: Any, tmp_path: Path, keys: str, value: Any) -> None:
    path = write_predictions(tmp_path, "seedbench", answered(20))
    file = tmp_path / "seedbench.protocol.json"
    file.write_text(json.dumps(replaced(json.loads(file.read_text()), keys, value)))
    if (keys, value) in (("warnings", []), ("protocol.data.questions", 0)):
        score_file(path)
        return
    with pytest.raises(ValueError, match=rf"seedbench.protocol.json is damaged \({keys}.* is missing or invalid\)"):
        score_file(path)


@pytest.mark.parametrize("value", [None, "x", [], {}, [None], {"a": 1}])
@pytest.mark.parametrize("keys", ["value", "interval", "warnings", "run.protocol", "run.protocol.image", "run.model"])
def test_a_damaged_score_file_is_named(write_predictions: Any, tmp_path: Path, keys: str, value: Any) -> None:
    score_file(write_predictions(tmp_path, "seedbench", answered(20))).score.write(tmp_path)
    file = tmp_path / "seedbench.score.json"
    file.write_text(json.dumps(replaced(json.loads(file.read_text()), keys, value)))
    if (keys, value) == ("warnings", []) or (keys == "run.protocol.image" and isinstance(value, dict)):
        assert make_tables(read_scores(tmp_path))
        return
    with pytest.raises(ValueError, match=r"seedbench.score.json is not a score file"):
        read_scores(tmp_path)


def test_a_row_without_its_answer_is_named(write_predictions: Any, tmp_path: Path) -> None:
    path = write_predictions(tmp_path, "seedbench", [({"question": "q", "A": "x"}, "A")])
    with pytest.raises(ValueError, match="the row of a prediction has no 'answer', which its score needs"):
        score_file(path)
