"""Settings that must stand before torch is loaded, and fixtures that every part of the tests may use."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and so do the processes they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference fixtures beside the checkout; where it is absent, the test is skipped."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference fixtures (a folder `shared` beside the checkout) are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved five-stage model with random weights and the nano tokenizer; copy it before changing a file."""
    from tiny import tiny_model

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    for part in tiny_model(tie_word_embeddings=True):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):  # not loaded for the sake of a test that does without it
        torch.manual_seed(0)
