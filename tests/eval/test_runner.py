"""The runner: every sample answered once, in order, written down and scored."""

import json
from pathlib import Path

import pytest
from tiny import tiny_model

from convllava.eval import BENCHMARKS, run_benchmark
from convllava.eval.synthetic import is_right, question_of, truth_of
from convllava.inference import Generator


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_truth_is_right_and_questions_are_asked(name: str) -> None:
    samples = BENCHMARKS[name].samples(5)
    for index in range(len(samples)):
        assert is_right(samples[index], truth_of(samples[index]))
        assert not is_right(samples[index], "something else")
        assert question_of(samples[index])


def test_predictions_and_score_are_written(tmp_path: Path) -> None:
    generator = Generator(*tiny_model(), max_batch=2)
    seen: list[tuple[int, int]] = []
    score = run_benchmark(generator, "synthetic-scenes", limit=5, out=tmp_path, on_progress=lambda *at: seen.append(at))
    lines = (tmp_path / "synthetic-scenes.predictions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["sample_id"].rsplit("/", 1)[1] for record in records] == list("01234")
    assert score.value == pytest.approx(sum(record["right"] for record in records) / 5)
    assert json.loads((tmp_path / "synthetic-scenes.score.json").read_text())["value"] == score.value
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_an_unknown_benchmark_names_the_nearest() -> None:
    generator = Generator(*tiny_model())
    with pytest.raises(ValueError, match=r"no benchmark 'synthetic-line'; did you mean 'synthetic-lines'\?"):
        run_benchmark(generator, "synthetic-line")
