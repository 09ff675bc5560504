"""The paper's figures: sums, differences and repeated rows that the paper prints, and scores below their rows."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from convllava.cli.main import main
from convllava.eval.paper import (
    FIGURE_3_BENCHMARKS,
    IMPROVEMENTS,
    SAME_RUN,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLES,
    row_of,
    rows_of,
    run_of,
)
from convllava.eval.scoring import score_file
from convllava.eval.tables import as_markdown, make_tables, read_scores


def answered(right: int) -> list[tuple[dict[str, Any], str]]:
    """Forty questions of SEED-Bench, so many of which have the right letter."""
    row = {"question": "q", "A": "x", "B": "y", "answer": "A"}
    return [({**row, "index": number}, "A" if number < right else "B") for number in range(40)]


def test_every_row_has_a_figure_for_every_column() -> None:
    assert list(TABLES) == list(range(2, 12))
    assert all(len(row.figures) == len(table.columns) for table in TABLES.values() for row in table.rows.values())


def test_all_but_one_of_the_papers_averages_follow_from_its_figures() -> None:
    for name, row in TABLE_6.rows.items():
        mean = statistics.mean(value for value in row.figures if value is not None)
        assert mean == pytest.approx(82.5375 if name == "1536" else row.printed_mean, abs=0.051)
    assert TABLE_6.rows["1536"].printed_mean == 82.3


def test_improvements_of_table_3_follow_from_table_2() -> None:
    for name, (*by_column, mean) in IMPROVEMENTS.items():
        pairs = zip(TABLE_3.rows[name].figures, TABLE_2.rows[name].figures, strict=True)
        differences = [round((updated or 0) - (frozen or 0), 1) for updated, frozen in pairs]
        assert differences == by_column
        assert statistics.mean(differences) == pytest.approx(mean, abs=0.051)
        assert f"{TABLE_3.rows[name].label} +{mean}" in TABLE_3.notes[1]


def test_differences_that_section_3_3_states() -> None:
    four, five = TABLE_3.rows["convnext-l-768"].figures, TABLE_4.rows["768"].figures
    assert round((four[1] or 0) - (five[1] or 0), 1) == 0.9
    assert round((four[3] or 0) - (five[3] or 0), 1) == 9.1


def test_rows_that_are_the_same_run_have_the_same_figures() -> None:
    for row, run in SAME_RUN.items():
        suite, name = row.split("/")
        if suite.startswith("table") and suite != "table6":
            assert TABLES[int(suite.removeprefix("table"))].rows[name].figures == row_of(run).figures
        assert name in rows_of(suite)
        assert run_of(run) == run


def test_rows_are_the_folders_of_the_recipes() -> None:
    paper = Path(__file__).parents[2] / "recipes" / "paper"
    for suite in (*(table.name for table in TABLES.values() if table.number != 7), "figure3"):
        folders = {folder.name for folder in (paper / suite).iterdir()}
        rivals = {name for name in rows_of(suite) if row_of(f"{suite}/{name}").label.split()[0] not in LABELS}
        assert folders == set(rows_of(suite)) - rivals


LABELS = ("ConvLLaVA", "ConvNeXt-L", "ConvNeXt-L,", "ViT-L", "from", "3", "6", "9")
"""First words of the labels of rows that the package can train."""


def test_scores_are_below_the_rows_that_they_belong_to(write_predictions: Any, tmp_path: Path) -> None:
    for folder, right in {
        "table3/convnext-l-768": 30,
        "table4/768": 20,
        "table9/from-stage-2": 24,
        "paper/llava-next-7b": 28,
    }.items():
        path = write_predictions(tmp_path / folder, "seedbench", answered(right), model="mine")
        score_file(path).score.write(path.parent)
    laid = {table.title[:8].rstrip(":"): table for table in make_tables(read_scores(tmp_path))}
    assert list(laid) == ["Table 3", "Table 4", "Table 5", "Table 9", "Table 10"]
    for title, label, value in [
        ("Table 3", "ConvNeXt-L 768", "75.0"),
        ("Table 4", "ConvNeXt-L, five stages, 768", "50.0"),
        ("Table 5", "LLaVA-NeXT 7B", "70.0"),
        ("Table 9", "from stage 2", "60.0"),
        ("Table 9", "from stage 3", "50.0"),
        ("Table 10", "6 layers", "50.0"),
    ]:
        rows = laid[title].rows
        at = [row[0] for row in rows].index(label)
        assert rows[at + 1][:2] == ["mine", "measured"]
        assert any(cell.startswith(value) for cell in rows[at + 1])
    assert "| ViT-L 336 | paper | 66.8 | 68.1 | 50.1 | 26.4 |" in as_markdown(list(laid.values()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "table3"], "table3 compares models: say which row MODEL is, --row vit-l-336, convnext-l-512"),
        (["--suite", "table9", "--row", "from-stage-5"], "table9 has no row 'from-stage-5': one of from-stage-2"),
        (["--suite", "synthetic", "--row", "768"], "--row belongs to a --suite that is a table of the paper"),
        (["--benchmark", "mme", "--row", "768"], "--row belongs to a --suite that is a table of the paper"),
        (["--suite", "table7", "--row", "pad-1536"], "--suite table7 runs all of its rows: leave out --row"),
    ],
)
def test_a_row_that_cannot_be_is_named(words: list[str], message: str, capsys: Any) -> None:
    assert main(["eval", "run", "nano", *words]) == 2
    assert message in capsys.readouterr().err


def test_figure_3(write_predictions: Any, tmp_path: Path, capsys: Any) -> None:
    """The paper's points dashed, ours solid with intervals; one without a score of Figure 3 is an error."""
    pytest.importorskip("matplotlib")
    for folder, right in {
        "figure3/convnext-l-512": 27,
        "table3/convnext-l-768": 29,
        "figure3/five-stage-1024": 31,
    }.items():
        path = write_predictions(tmp_path / folder, "seedbench", answered(right), model="mine")
        score_file(path).score.write(path.parent)
    out = tmp_path / "figure3.svg"
    assert main(["eval", "table", str(tmp_path), "--figure3", str(out)]) == 0
    assert "written:" in capsys.readouterr().err
    text = out.read_text()
    assert all(f"<!-- {words} -->" in text for words in ("four stages, measured", "five stages, paper"))
    twice = write_predictions(tmp_path / "table4" / "1024", "seedbench", answered(1), model="mine")
    score_file(twice).score.write(twice.parent)
    assert main(["eval", "table", str(tmp_path), "--figure3", str(out)]) == 2
    assert "are the same point of Figure 3" in capsys.readouterr().err
    assert set(FIGURE_3_BENCHMARKS) < set(TABLE_5.benchmarks)
