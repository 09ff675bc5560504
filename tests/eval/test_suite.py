"""Suites and sweeps: options that cannot be or have no effect, benchmarks that wait for a judge."""

from pathlib import Path
from typing import Any

import pytest
from kit_files import write_tsv, yes_no_rows

from convllava.cli.main import main
from convllava.eval import run_benchmark
from convllava.inference import Generator


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image-aspect-ratio", "square"], "image_aspect_ratio is one of 'pad', 'native', got 'square'"),
        (["--resolution", "10"], "resolution is at least the output stride of 64, got 10"),
        (["--max-visual-tokens", "0"], "max_visual_tokens is at least 1"),
    ],
)
def test_impossible_image_options_are_refused_before_anything_is_answered(
    command: str, words: list[str], message: str, tiny_checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    given = ["--benchmark", "synthetic-lines", "--limit", "1", "--out", str(tmp_path / "out"), *words]
    if command == "sweep" and words[0] == "--resolution":
        given[-1] = "128,10"  # the first setting is possible
    assert main(["eval", command, str(tiny_checkpoint), *given]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.predictions.jsonl"))


def test_an_evaluation_in_which_every_sample_failed_is_an_error(generator: Generator, tmp_path: Path) -> None:
    too_many = {"image_aspect_ratio": "pad", "resolution": 64 * 64}  # more visual tokens than the context holds
    with pytest.raises(ValueError, match=r"synthetic lines: no score, all of 2 samples failed; the first, .*context"):
        run_benchmark(generator, "synthetic-lines", limit=2, out=tmp_path, **too_many)
    assert len((tmp_path / "synthetic-lines.predictions.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "synthetic-lines.score.json").exists()


def test_a_benchmark_that_needs_a_judge_waits_for_it(
    tiny_checkpoint: Path, tmp_path: Path, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told before anything is answered, and does not make a script stop whose other scores are there."""
    write_tsv(tmp_path / "MMVet.tsv", [{**row, "answer": "x", "category": "rec"} for row in yes_no_rows(2)])
    write_tsv(tmp_path / "MME.tsv", yes_no_rows(2))
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["eval", "run", str(tiny_checkpoint), "--benchmark", "mmvet,mme", *words]) == 0
    printed = capsys.readouterr()
    assert "MM-Vet: answered but not scored in this run, which has no judge" in caplog.text
    assert printed.out.startswith("mme: perception points")
    assert "note: MM-Vet is answered but cannot be scored without a judge: convllava eval score" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ocr-tokens"], "--ocr-tokens has no effect on synthetic-lines: only textvqa has them"),
        (
            ["--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m"],
            "--judge-url has no effect on synthetic-lines",
        ),
    ],
)
def test_an_option_without_an_effect_is_refused(words: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    given = ["--benchmark", "synthetic-lines", "--out", str(tmp_path / "out"), *words]
    assert main(["eval", "run", "nano", *given]) == 2
    assert message in capsys.readouterr().err
