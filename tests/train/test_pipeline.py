"""Pipelines: several runs in one file, each from the model of the one before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from convllava.cli.main import main
from convllava.train import TimeLeft, is_pipeline, load_pipeline

PIPELINE = """
common: {output_dir: runs, global_batch_size: 2, trackers: []}
mixes:
  lines: [{name: synthetic/line, count: 16, options: {sizes: [[64, 64]]}}]
  scenes:
    - {name: synthetic/scene, count: 16, weight: 3, options: {sizes: [[128, 128]]}}
    - {name: synthetic/grounding, count: 16, options: {sizes: [[128, 128]]}}
steps:
  encoder: {training_stage: encoder, model: nano, prompt_format: plain, data: {lines: 1},
            learning_rate: 1e-3, max_steps: 2}
  projector_init:
    training_stage: projector_init
    prompt_format: tokenizer
    append_stages: {depths: [1], hidden_sizes: [64]}
    data: {lines: 1, scenes: 2}
    learning_rate: 1e-3
    max_steps: 3
  instruct: {training_stage: instruct, data: {scenes: 1}, learning_rate: 1e-3, max_steps: 2}
"""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    return path


def test_each_step_starts_from_the_one_before(pipeline: Path) -> None:
    assert is_pipeline(pipeline)
    first, second, third = load_pipeline(pipeline).recipes.values()
    assert [str(one.output_dir) for one in (first, second, third)] == [
        "runs/1_encoder",
        "runs/2_projector_init",
        "runs/3_instruct",
    ]
    assert (first.init_from, second.init_from, third.init_from) == (None, "runs/1_encoder", "runs/2_projector_init")
    assert third.model is not None and third.model.append_stages is not None
    assert third.model.append_stages.hidden_sizes == [64]
    assert [entry.weight for entry in second.data] == [1, 1.5, 0.5]


def test_a_pipeline_is_adapted_by_a_short_file_and_by_overrides(pipeline: Path) -> None:
    other = pipeline.with_name("gpu.yaml")
    other.write_text(
        "extends: pipeline.yaml\ncommon: {precision: bfloat16}\nsteps: {encoder: {global_batch_size: 8}}\n"
    )
    first, second, _ = load_pipeline(other, ["steps.encoder.max_steps=7", "common.seed=3"]).recipes.values()
    assert (first.global_batch_size, first.max_steps, first.precision, first.seed) == (8, 7, "bfloat16", 3)
    assert (second.global_batch_size, second.precision) == (2, "bfloat16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lines: 1}", "line: 1}"), "step encoder: no mix 'line'; did you mean 'lines'"),
        (("lines: 1}", "lines: -1}"), "the weight of lines must be a positive number, got -1"),
        (("max_steps: 2}", "max_stepz: 2}"), "step encoder: unknown key 'max_stepz'"),
        (("mixes:", "mixtures:"), "unknown key 'mixtures'; did you mean 'mixes'"),
        (("weight: 3", "weight: much"), "mix scenes: weight"),
        (
            ("[{name: synthetic/line, count: 16, options: {sizes: [[64, 64]]}}]", "synthetic/line"),
            "mix lines must be a list of data",
        ),
        (("\nsteps:", "\nstages:"), "unknown key 'stages'"),
        (("\n  instruct: {", "\n  instruct: 3\n#"), "step instruct: must be a mapping of keys to values, got 3"),
    ],
)
def test_mistakes_are_told_with_their_place(pipeline: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in PIPELINE
    pipeline.write_text(PIPELINE.replace(*change))
    with pytest.raises(ValueError, match=r"pipeline\.yaml") as error:
        load_pipeline(pipeline)
    assert message in str(error.value)


def test_a_pipeline_trains_in_one_command_and_resumes_anywhere(
    pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "pipeline.yaml", "--dry-run", "--json"]) == 0
    plans = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [planned["steps"] for planned in plans] == [2, 3, 2]
    assert all(planned["visual_tokens"] > 0 for planned in plans)

    pipeline.write_text(PIPELINE[: PIPELINE.index("  instruct:")])
    assert main(["train", "pipeline.yaml", "steps.encoder.stop_after_minutes=1e-9"]) == 0
    assert "unfinished" in capsys.readouterr().out
    assert not Path("runs/2_projector_init").exists()

    assert main(["train", "pipeline.yaml", "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "1/2 encoder: step 2/2" in printed and "2/2 projector_init: step 3/3" in printed
    assert "h left of the pipeline" in printed
    assert json.loads(Path("runs/2_projector_init/config.json").read_text())["vision_config"]["hidden_sizes"][-1] == 64


def test_steps_are_planned_before_their_start_exists(pipeline: Path) -> None:
    values = yaml.safe_load(PIPELINE)
    instruct = values["steps"]["instruct"]
    values["common"]["init_from"] = "nano"
    values["steps"] = {"first": instruct, "second": instruct}
    pipeline.write_text(yaml.safe_dump(values))
    first, second = load_pipeline(pipeline).plannable().values()
    assert (first.init_from, second.init_from) == ("nano", "nano")
    values["steps"]["first"] = instruct | {"append_stages": {"depths": [1], "hidden_sizes": [8]}}
    pipeline.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="step second follows one with append_stages: state the architecture"):
        load_pipeline(pipeline).plannable()


@pytest.mark.slow
def test_two_processes_train_a_pipeline(pipeline: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "convllava.cli.main", "train", "pipeline.yaml"]
    done = subprocess.run(command, cwd=pipeline.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained model: ") == 3


def test_the_time_left_follows_from_the_work_done() -> None:
    now = iter([100.0, 100.0, 160.0, 160.0])
    time_left = TimeLeft([1e9, 3e9], clock=lambda: next(now))
    assert time_left.seconds(0, 0.5) is None
    assert time_left.seconds(1, 1 / 6) == pytest.approx(60 / 1e9 * 2.5e9)
