"""``convllava push``: the files that are uploaded, the card, and what is refused; the hub is a stand-in."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from convllava.cli.main import main


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint as training leaves it: without a card, with a log and a folder of checkpoints."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "log.jsonl").write_text("{}\n")
    (folder / "recipe.yaml").write_text("model: x\n")
    (folder / "optimizer.pt").write_bytes(b"x")
    (folder / "checkpoints").mkdir()
    return folder


def test_a_dry_run_lists_what_would_be_uploaded(folder: Path, capsys: Any) -> None:
    words = ["push", str(folder), "me/mine", "--license", "apache-2.0", "--dry-run"]
    assert main([*words, "--base-model", "a/b", "--dataset", "c/d", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"config.json", "model.safetensors", "recipe.yaml", "tokenizer.json"} <= set(found["files"])
    assert found["left_out"] == ["log.jsonl", "optimizer.pt", "checkpoints/"]
    data = huggingface_hub.ModelCard(found["card"]).data
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", ["a/b"], ["c/d"])
    assert data.pipeline_tag == "image-text-to-text" and "# me/mine" in found["card"]
    assert found["url"] is None
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "nothing was uploaded (--dry-run)" in printed.out
    assert "left out: log.jsonl, optimizer.pt, checkpoints/" in printed.out
    assert "the card names no base model (--base-model)" in printed.err
    assert not (folder / "README.md").exists()


def test_a_card_of_the_folder_keeps_its_text(folder: Path, capsys: Any) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: a/b\n---\n\nMine.\n")
    assert main(["push", str(folder), "me/mine", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "Mine." in found["card"] and "license: mit" in found["card"]
    assert found["warnings"] == []


def test_everything_is_one_commit(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    calls: list[Any] = []

    class Hub:
        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append((repo, options))

        def create_commit(self, repo: str, operations: Any, **options: Any) -> Any:
            calls.append((repo, sorted(operation.path_in_repo for operation in operations)))
            return type("Commit", (), {"commit_url": "https://hub/commit/1"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert main(["push", str(folder), "me/mine", "--license", "apache-2.0", "--private"]) == 0
    assert "https://hub/commit/1" in capsys.readouterr().out
    assert calls[0] == ("me/mine", {"private": True, "exist_ok": True})
    assert {"README.md", "model.safetensors"} <= set(calls[1][1]) and "optimizer.pt" not in calls[1][1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["me/mine"], "the license is not set: give --license"),
        (["mine", "--license", "mit"], "'mine' is not a hub id: give OWNER/NAME"),
        (["me/../x", "--license", "mit"], "Repo id must"),
        (["me/mine", "--license", "other"], "--license other needs --license-name and --license-link"),
    ],
)
def test_what_is_refused(folder: Path, words: list[str], message: str, capsys: Any) -> None:
    assert main(["push", str(folder), *words, "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_pickles_and_other_folders_are_refused(folder: Path, tmp_path: Path, capsys: Any) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    assert main(["push", str(folder), "me/mine", "--license", "mit", "--dry-run"]) == 2
    assert "its weights are pickles; 'convllava convert' rewrites them" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["push", str(tmp_path / "empty"), "me/mine", "--dry-run"]) == 2
    assert "is not a checkpoint: it has no config.json" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "absent"), "me/mine"]) == 2


def test_without_a_network_the_error_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    class Hub:
        def create_repo(self, repo: str, **options: Any) -> None:
            raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert main(["push", str(folder), "me/mine", "--license", "mit"]) == 2
    assert "the hub cannot be reached (offline): --dry-run works without it" in capsys.readouterr().err
