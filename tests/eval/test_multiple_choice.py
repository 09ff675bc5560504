"""Multiple choice in SEED-Bench, and in tables of the kit."""

import json
from pathlib import Path

import pytest
from kit_files import image_text, predict, write_tsv

from convllava.eval import LoadOptions, Scoring, find_benchmark
from convllava.eval.adapters.vlmevalkit_scoring import kit_outcome

MCQ = {"question": "Which?", "A": "cat", "B": "dog", "answer": "B", "category": "animals"}


def test_choices(tmp_path: Path) -> None:
    rows = [{"index": n, "image": image_text(), **MCQ} for n in range(3)]
    write_tsv(tmp_path / "SEEDBench_IMG.tsv", rows)
    questions = find_benchmark("seedbench").load(tmp_path, LoadOptions())
    loaded = [questions[index].row for index in range(3)]
    outcome = find_benchmark("seedbench").outcome(predict(loaded, ["B", "a dog", "neither"]), Scoring())
    assert outcome.value == pytest.approx(200 / 3)
    assert outcome.per_category == {"animals": pytest.approx(200 / 3)}
    assert [verdict.resolved for verdict in outcome.verdicts] == [True, True, False]
    assert any("md5" in warning for warning in questions.warnings)


def test_plain_choice_tables(shared_dir: Path) -> None:
    names = {"SEEDBench_IMG": "seedbench", "RealWorldQA": "realworldqa", "MMMU_DEV_VAL": "mmmu"}
    cases = json.loads((shared_dir / "eval/vectors/mcq_vanilla.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        rows = [dict(zip(case["columns"], row, strict=True)) for row in case["rows"]]
        benchmark = find_benchmark(names[case["dataset"]])
        for profile, column in (("paper", "paper_era"), ("current", "current")):
            judged = predict(rows, [row["prediction"] or "" for row in rows])
            outcome = kit_outcome(benchmark, judged, Scoring(profile))  # type: ignore[arg-type]
            expected = case["expected"]["exact_matching"][column]
            hits = {str(row["index"]): int(v.credit) for row, v in zip(rows, outcome.verdicts, strict=True)}
            assert hits == expected["hit"], (case["id"], profile)
            for split, report in expected["report"].items():
                own = [answer for answer in judged if answer.row.get("split", split) == split]
                within = kit_outcome(benchmark, own, Scoring(profile))  # type: ignore[arg-type]
                assert within.value == pytest.approx(100 * report["Overall"]), (case["id"], profile, split)
