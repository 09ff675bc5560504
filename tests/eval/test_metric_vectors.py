"""Every metric against recorded results of the reference implementations."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from convllava.eval.adapters.vlmevalkit_scoring import kit_mmvet_scores
from convllava.eval.benchmarks.mmbench import circular_scores
from convllava.eval.benchmarks.mme import mme_scores
from convllava.eval.benchmarks.mmvet import mmvet_scores
from convllava.eval.benchmarks.pope import pope_scores
from convllava.eval.benchmarks.textvqa import normalize_vqa_answer, vqa_accuracy
from convllava.eval.metrics import PROFILES, anls, box_iou, extract_yes_no, grounding_hit, parse_box
from convllava.eval.multiple_choice import extract_choice

L2_SHORT = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}
"""Names of MMBench's L2 categories in VLMEvalKit's reports."""

COLUMN = {"paper": "paper_era", "current": "current"}
same = partial(pytest.approx, abs=1e-9)


@pytest.fixture(scope="module")
def vectors(shared_dir: Path) -> Path:
    return shared_dir / "eval" / "vectors"


def load(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return content


def rows_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(case["columns"], row, strict=True)) for row in case["rows"]]


def number(value: Any) -> float:
    return float(value)  # "nan" and "inf" are written as text


@pytest.mark.parametrize("profile", PROFILES)
def test_choices(vectors: Path, profile: Any) -> None:
    for case in load(vectors, "mcq_option_text")["cases"]:
        expected = case["expected"][COLUMN[profile]]["infer"]
        assert extract_choice(case["prediction"], case["choices"], profile=profile) == expected, case["id"]


@pytest.mark.parametrize("profile", PROFILES)
def test_yes_no(vectors: Path, profile: Any) -> None:
    for case in load(vectors, "yes_no_extraction")["cases"]:
        expected = case["expected"][f"vlmevalkit_{COLUMN[profile]}"]
        assert extract_yes_no(case["prediction"], profile=profile) == expected, case["id"]


@pytest.mark.parametrize("profile", PROFILES)
def test_vqa(vectors: Path, profile: Any) -> None:
    column = f"vlmevalkit_{COLUMN[profile]}"
    for case in load(vectors, "vqa_normalise")["cases"]:
        assert normalize_vqa_answer(case["input"], profile=profile) == case["expected"][column], case["id"]
    for case in load(vectors, "vqa_accuracy")["cases"]:
        value = vqa_accuracy(case["prediction"], case["answers"], profile=profile)
        assert value == same(case["expected"][column]), case["id"]


def test_anls(vectors: Path) -> None:
    for case in load(vectors, "docvqa_anls")["cases"]:
        assert anls(case["prediction"], case["answers"]) == same(case["expected"]["vlmevalkit"]), case["id"]


def test_boxes(vectors: Path) -> None:
    for case in load(vectors, "grounding_boxes")["cases"]:
        expected = case["expected"]["convllava"]
        parsed = expected["parsed"] and tuple(map(number, expected["parsed"]))
        assert (
            parse_box(case["answer"]) == pytest.approx(parsed, nan_ok=True)
            if parsed
            else parse_box(case["answer"]) is None
        ), case["id"]
        hit = grounding_hit(case["answer"], case["gt_xyxy"], case["width"], case["height"])
        assert hit == expected["hit"], case["id"]


def test_overlaps(vectors: Path) -> None:
    for case in load(vectors, "iou_pairs")["cases"]:
        expected = pytest.approx(number(case["expected"]["convllava"]), abs=1e-5, nan_ok=True)
        assert box_iou(case["box1"], case["box2"]) == expected, case["id"]


def test_mme(vectors: Path) -> None:
    data = load(vectors, "mme_aggregate")
    for case in data["cases"]:
        rows = [{"category": "count", **row} for row in rows_of(case)]
        scores = mme_scores(rows)
        found = [scores[name]["count"] for name in ("accuracy", "accuracy_plus", "per_category")]
        assert found == same([case["expected"][name] for name in ("acc", "acc_plus", "score")]), case["id"]
    for case in data["full_tables"]:
        expected = dict(case["expected"]["vlmevalkit"])
        for profile in PROFILES:
            scores = mme_scores(rows_of(case), profile=profile)
            assert scores["perception"] == same(expected["perception"]), case["id"]
            assert scores["cognition"] == same(expected["reasoning"]), case["id"]
            subtasks = {name: value for name, value in expected.items() if name not in ("perception", "reasoning")}
            assert scores["per_category"] == same(subtasks), case["id"]


def test_pope(vectors: Path) -> None:
    names = {"f1": "Overall", "accuracy": "acc", "precision": "precision", "recall": "recall"}
    for case in load(vectors, "pope_metrics")["cases"]:
        scores = pope_scores(rows_of(case))
        expected = case["expected"]["vlmevalkit"]
        assert scores["per_split"].keys() == expected.keys() - {"Overall"}, case["id"]
        for split, figures in {"Overall": scores["overall"], **scores["per_split"]}.items():
            wanted = {ours: number(expected[split][theirs]) for ours, theirs in names.items()}
            assert figures == same(wanted), (case["id"], split)


def circular_tables(vectors: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    for case in load(vectors, "mmbench_circular")["cases"]:
        rows = rows_of(case)
        for row in rows:
            row["choices"] = {letter: row[letter] for letter in "ABCD" if row[letter] is not None}
        yield case, rows


@pytest.mark.parametrize("profile", PROFILES)
def test_circular(vectors: Path, profile: Any) -> None:
    for case, rows in circular_tables(vectors):
        check_circular(case["expected"]["exact_matching"][COLUMN[profile]], rows, profile)
        if "with_judge" in case["expected"]:
            judged = [{**row, "choice": case["judge_answers"].get(row["prediction"])} for row in rows]
            check_circular(case["expected"]["with_judge"][COLUMN[profile]], judged, profile)


def check_circular(expected: dict[str, Any], rows: list[dict[str, Any]], profile: Any) -> None:
    scores = circular_scores(rows, profile=profile)
    assert {str(index): int(hit) for index, hit in scores["hits"].items()} == expected["hit"]
    for split, report in expected["report"].items():
        within = circular_scores([row for row in rows if row.get("split", split) == split], profile=profile)
        short = {L2_SHORT.get(name, name): share for name, share in within["per_l2_category"].items()}
        found = {"Overall": within["overall"], **short, **within["per_category"]}
        assert found == same({name: value for name, value in report.items() if not math.isnan(number(value))})


def test_mmvet(vectors: Path) -> None:
    for case in load(vectors, "mmvet")["cases"]:
        rows, expected = rows_of(case), case["expected"]
        derived = expected["derived_per_capability_separate_counters"]
        check_mmvet(mmvet_scores(rows), derived, None, case["id"])
        check_mmvet(kit_mmvet_scores(rows), expected["per_capability"], expected, case["id"])


def check_mmvet(scores: dict[str, Any], wanted: dict[str, Any], combined: dict[str, Any] | None, name: str) -> None:
    found = {**scores["per_capability"], "Overall": scores["overall"]}
    assert found == same({key: value["acc"] for key, value in wanted.items() if value["count"]}), name
    if combined:
        per_combination = {**scores["per_combination"], "Overall": scores["overall"]}
        assert per_combination == same({key: value["acc"] for key, value in combined["per_combination"].items()}), name


def test_metrics_need_no_torch() -> None:
    program = "import sys; import convllava.eval.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
