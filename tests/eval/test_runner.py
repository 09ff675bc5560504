"""The runner: every sample is answered and written once, even after an interruption, and scored."""

import base64
import json
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from kit_files import image_text, write_tsv, yes_no_rows
from tiny import tiny_model

from convllava.eval import LoadOptions, find_benchmark, run_benchmark
from convllava.eval.answering import sort_by_shape
from convllava.eval.benchmarks.synthetic import SYNTHETIC, is_correct, question_of, truth_of
from convllava.eval.protocol import RunOptions, model_fingerprint
from convllava.eval.runner import ranks
from convllava.image_options import ImageOptions
from convllava.inference import Generator, Request

fork = multiprocessing.get_context("fork")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_the_reference_answer_is_correct(name: str) -> None:
    samples = SYNTHETIC[name].dataset(5)
    for index in range(len(samples)):
        size = samples[index].images[0].size[::-1]
        assert is_correct(truth_of(samples[index]), truth_of(samples[index]), size)
        assert not is_correct("something else", truth_of(samples[index]), size)
        assert question_of(samples[index])


def test_predictions_protocol_and_score_are_written(generator: Generator, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    score = run_benchmark(
        generator,
        "synthetic-scenes",
        limit=5,
        out=tmp_path,
        on_progress=lambda done, total, mean: seen.append((done, total)),
    )
    records = read(tmp_path / "synthetic-scenes.predictions.jsonl")
    assert [record["sample_id"] for record in records] == [f"synthetic-scenes/{number}" for number in range(5)]
    assert {record["model_fingerprint"] for record in records} == {model_fingerprint(generator.model)}
    right = [is_correct(r["prediction"], r["row"]["answer"], (r["row"]["height"], r["row"]["width"])) for r in records]
    assert score.value == pytest.approx(sum(right) / 5)
    written = json.loads((tmp_path / "synthetic-scenes.score.json").read_text())
    assert written["value"] == score.value
    assert written["run"]["protocol"]["prompt_example"].startswith("<s><|user|><image>")
    assert written["run"]["protocol"]["image"]["image_aspect_ratio"] == "native"
    assert written["warnings"] == ["5 of 500 questions of synthetic scenes are scored: not the benchmark's figure"]
    assert seen == [(number, 5) for number in range(1, 6)]


def test_batched_equals_one_by_one(generator: Generator, tmp_path: Path) -> None:
    one = Generator(generator.model, generator.processor, max_batch=1)
    run_benchmark(generator, "synthetic-lines", limit=7, out=tmp_path / "batched")
    run_benchmark(one, "synthetic-lines", limit=7, out=tmp_path / "single")
    name = "synthetic-lines.score.json"
    assert (tmp_path / "batched" / name).read_bytes() == (tmp_path / "single" / name).read_bytes()


def test_answers_are_those_of_the_generator(generator: Generator, tmp_path: Path) -> None:
    run_benchmark(generator, "synthetic-documents", limit=2, out=tmp_path)
    sample = SYNTHETIC["synthetic-documents"].dataset()[1]
    (answer,) = generator.generate([Request.of_question(question_of(sample), sample.images)])
    line = read(tmp_path / "synthetic-documents.predictions.jsonl")[1]
    assert line["prediction"] == answer.text
    assert line["image_sizes"] == [list(size) for size in answer.image_sizes]


def test_a_stopped_run_is_resumed(generator: Generator, tmp_path: Path) -> None:
    run_benchmark(generator, "synthetic-scenes", limit=6, out=tmp_path / "whole")
    run_benchmark(generator, "synthetic-scenes", limit=3, out=tmp_path / "parts")
    path = tmp_path / "parts" / "synthetic-scenes.predictions.jsonl"
    with path.open("a") as stream:
        stream.write('{"sample_id": "synthetic-scenes/4", "predi')  # killed in the middle of a line
    asked: list[int] = []
    run_benchmark(
        generator,
        "synthetic-scenes",
        limit=6,
        out=tmp_path / "parts",
        on_progress=lambda done, total, mean: asked.append(done),
    )
    assert asked == [4, 5, 6]
    for kind in ("predictions.jsonl", "score.json"):
        name = f"synthetic-scenes.{kind}"
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def run_slowly(folder: Path) -> None:
    torch.set_num_threads(1)
    slow = Generator(*tiny_model(), max_batch=2)
    run_benchmark(slow, "synthetic-scenes", limit=12, out=folder, on_progress=lambda *at: time.sleep(0.3))


def test_kill_9_loses_nothing_and_repeats_nothing(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "killed" / "synthetic-scenes.predictions.jsonl"
    child = fork.Process(target=run_slowly, args=(path.parent,))
    child.start()
    deadline = time.monotonic() + 120
    while not (path.is_file() and len(path.read_bytes().splitlines()) >= 3):
        assert child.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    kept = {line["sample_id"]: line for line in read_whole(path)}
    assert 3 <= len(kept) < 12
    answered: list[int] = []
    run_benchmark(
        generator, "synthetic-scenes", limit=12, out=path.parent, on_progress=lambda done, *rest: answered.append(done)
    )
    assert len(answered) == 12 - len(kept)
    lines = read(path)
    assert [line["sample_id"] for line in lines] == [f"synthetic-scenes/{number}" for number in range(12)]
    assert all(line == kept[line["sample_id"]] for line in lines if line["sample_id"] in kept)
    run_benchmark(generator, "synthetic-scenes", limit=12, out=tmp_path / "whole")
    assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


def read_whole(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def run_rank(rank: int, port: int, folder: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(1)
    with ranks() as processes:
        own = Generator(*tiny_model(), max_batch=2)
        run_benchmark(own, "synthetic-scenes", limit=9, out=folder, ranks=processes)


def test_two_processes_write_identical_files(generator: Generator, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [fork.Process(target=run_rank, args=(rank, port, tmp_path / "two")) for rank in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    run_benchmark(generator, "synthetic-scenes", limit=9, out=tmp_path / "one")
    for kind in ("predictions.jsonl", "score.json", "protocol.json"):
        name = f"synthetic-scenes.{kind}"
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert not list((tmp_path / "two").glob("*rank*"))


def test_predictions_of_another_model_or_protocol_are_an_error(generator: Generator, tmp_path: Path) -> None:
    run_benchmark(generator, "synthetic-scenes", limit=2, out=tmp_path)
    other = Generator(*tiny_model(seed=1))
    with pytest.raises(ValueError, match="was made by another model"):
        run_benchmark(other, "synthetic-scenes", limit=3, out=tmp_path)
    with pytest.raises(
        ValueError, match=r"made under another protocol \(image.max_visual_tokens: None / 2; file / this run\)"
    ):
        run_benchmark(generator, "synthetic-scenes", limit=3, out=tmp_path, max_visual_tokens=2)
    assert len(read(tmp_path / "synthetic-scenes.predictions.jsonl")) == 2


def test_a_damaged_line_is_named(generator: Generator, tmp_path: Path) -> None:
    run_benchmark(generator, "synthetic-scenes", limit=2, out=tmp_path)
    path = tmp_path / "synthetic-scenes.predictions.jsonl"
    path.write_text("{oops\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        run_benchmark(generator, "synthetic-scenes", limit=2, out=tmp_path)


def test_errors_are_kept_and_scored_wrong(generator: Generator, tmp_path: Path) -> None:
    """An image too large for the context and a truncated one are errors in the predictions."""
    rows = yes_no_rows(6)
    rows[0]["image"] = image_text("red", (64 * 24, 64 * 24))
    whole = image_text("blue", (200, 300))
    rows[2]["image"] = whole[: len(whole) // 4 * 2 // 4 * 4]
    write_tsv(tmp_path / "MME.tsv", rows)
    score = run_benchmark(generator, "mme", out=tmp_path / "out", data=tmp_path)
    lines = read(tmp_path / "out" / "mme.predictions.jsonl")
    assert score.samples == 6
    assert score.errors == 4
    assert [bool(line["error"]) for line in lines] == [True] * 4 + [False] * 2
    assert "tokens" in lines[0]["error"] and lines[0]["prediction"] == ""
    assert "damaged" in lines[2]["error"]
    assert any("md5" in warning for warning in score.warnings)
    assert any("has 6 questions, MME has 2374" in warning for warning in score.warnings)


def test_images_of_equal_shape_are_next_to_each_other(generator: Generator, tmp_path: Path) -> None:
    write_tsv(tmp_path / "MME.tsv", yes_no_rows(8))
    questions = find_benchmark("mme").load(tmp_path, LoadOptions())
    order = sort_by_shape(questions, range(8), generator, {})
    assert sorted(order) == list(range(8))
    shapes = [questions.image_sizes(index)[0] for index in order]
    assert len([1 for before, after in pairwise(shapes) if before != after]) == 1


def test_the_profile_sets_the_prompt_of_vicuna_models_only(generator: Generator, tmp_path: Path) -> None:
    write_tsv(tmp_path / "MME.tsv", yes_no_rows(2))
    processor = generator.processor
    own = run_benchmark(generator, "mme", out=tmp_path / "own", data=tmp_path)
    assert own.run is not None and own.run["protocol"]["prompt_format"] == "tokenizer"
    processor.set_prompt_format("vicuna_v1")
    score = run_benchmark(generator, "mme", out=tmp_path / "kit", data=tmp_path)
    assert score.run is not None and score.run["protocol"]["prompt_format"] == "llava_v1"
    assert "curious human" in score.run["protocol"]["prompt_template"]
    assert processor.prompt_format == "vicuna_v1"
    options = RunOptions(replace(LoadOptions(), prompts="llava"), ImageOptions())
    llava = run_benchmark(generator, "mme", out=tmp_path / "llava", data=tmp_path, options=options)
    assert llava.run is not None and "curious user" in llava.run["protocol"]["prompt_template"]


def test_an_unknown_benchmark_names_the_nearest(generator: Generator) -> None:
    with pytest.raises(ValueError, match=r"no benchmark 'synthetic-line'; did you mean 'synthetic-lines'\?"):
        run_benchmark(generator, "synthetic-line")


def failing_above(generator: Generator, most: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every forward pass over more sequences than ``most`` fail; return the list of batch sizes."""
    rows: list[int] = []
    forward = generator.model.model.forward

    def limited(*args: Any, **kwargs: Any) -> Any:
        given = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        rows.append(len(given))
        if len(given) > most:
            raise error
        return forward(*args, **kwargs)

    monkeypatch.setattr(generator.model.model, "forward", limited)
    return rows


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit answers to three tokens."""
    monkeypatch.setattr(type(find_benchmark("synthetic-scenes")), "max_new_tokens", lambda self, prompts: 3)


@pytest.mark.usefixtures("short_answers")
def test_the_batch_size_is_halved_when_memory_is_too_small(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run_benchmark(generator, "synthetic-scenes", limit=6, out=tmp_path / "enough")
    rows = failing_above(generator, 2, torch.OutOfMemoryError("CUDA out of memory"), monkeypatch)
    score = run_benchmark(generator, "synthetic-scenes", limit=6, out=tmp_path / "small")
    assert max(rows) > 2
    assert generator.max_batch == 2
    assert [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()] == [
        "out of memory: the batch size is 2 from here on"
    ]
    assert score.value == expected.value
    texts = [
        {record["sample_id"]: record["prediction"] for record in read(folder / "synthetic-scenes.predictions.jsonl")}
        for folder in (tmp_path / "enough", tmp_path / "small")
    ]
    assert texts[0] == texts[1]


@pytest.mark.usefixtures("short_answers")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("a bug")])
def test_errors_that_a_smaller_batch_does_not_fix(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing_above(generator, 0, error, monkeypatch)
    with pytest.raises(type(error), match=str(error)):
        run_benchmark(generator, "synthetic-scenes", limit=4, out=tmp_path)
    assert generator.max_batch == (1 if isinstance(error, torch.OutOfMemoryError) else 4)
    assert not generator.is_busy


def test_a_damaged_image_costs_its_question_only(generator: Generator, tmp_path: Path) -> None:
    rows = yes_no_rows(6)
    rows[0]["image"] = base64.b64encode(b"no image" * 20).decode()  # two questions are about it
    write_tsv(tmp_path / "MME.tsv", rows)
    score = run_benchmark(generator, "mme", out=tmp_path / "out", data=tmp_path)
    lines = read(tmp_path / "out" / "mme.predictions.jsonl")
    assert [bool(line["error"]) for line in lines] == [True, True, False, False, False, False]
    assert "is not an image that can be read" in lines[0]["error"]
    assert (score.samples, score.errors) == (6, 2)
    assert any("2 images of MME.tsv cannot be read: index 0: " in warning for warning in score.warnings)


def test_predictions_name_their_images(generator: Generator, tmp_path: Path) -> None:
    write_tsv(tmp_path / "MME.tsv", yes_no_rows(4))
    score = run_benchmark(generator, "mme", out=tmp_path / "out", data=tmp_path)
    (first,), (second,), (third,), (fourth,) = (
        line["images"] for line in read(tmp_path / "out" / "mme.predictions.jsonl")
    )
    assert first == second != third == fourth
    assert score.units == {"kind": "images", "number": 2}


def test_a_checkpoint_before_instruction_tuning_is_told_in_the_score(generator: Generator, tmp_path: Path) -> None:
    generator.model.training_stage = "pretrain"
    score = run_benchmark(generator, "synthetic-lines", limit=1, out=tmp_path)
    assert any("'pretrain' and has not seen instruction tuning" in warning for warning in score.warnings)
