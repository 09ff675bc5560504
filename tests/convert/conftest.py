"""The authors' tiny checkpoints, copies of them that a test may damage, and their tensors."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SPLIT, CONSOLIDATED = "official-split-tiny", "official-consolidated-tiny"
RESOLUTIONS = {SPLIT: None, CONSOLIDATED: 256}
"""Resolutions to pass; only the split layout stores its own."""

HAS_SENTENCEPIECE = all(importlib.util.find_spec(name) for name in ("sentencepiece", "google.protobuf"))


@pytest.fixture(scope="session")
def references(shared_dir: Path) -> Path:
    """The folder of both."""
    if not HAS_SENTENCEPIECE:
        pytest.skip("reading the fixtures' tokenizer.model needs sentencepiece and protobuf")
    return shared_dir / "reference"


@pytest.fixture
def split(references: Path, tmp_path: Path) -> Path:
    """A copy of the split layout."""
    return copy(references / SPLIT, tmp_path / "split")


@pytest.fixture
def consolidated(references: Path, tmp_path: Path) -> Path:
    """A copy of the consolidated layout."""
    return copy(references / CONSOLIDATED, tmp_path / "consolidated")


def copy(source: Path, target: Path) -> Path:
    """Copy a folder whose files may be read-only, without the golden outputs."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("golden"), copy_function=shutil.copyfile)
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    return target


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read all weight files of one folder, in any format."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    for path in sorted(folder.glob("pytorch_model*.bin")):
        tensors |= torch.load(path, weights_only=True)
    return tensors
