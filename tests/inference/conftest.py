"""A loaded model for the tests of this folder."""

from pathlib import Path

import pytest

from convllava.inference import load_pretrained
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint: Path) -> Loaded:
    """The tiny model and its processor in float32 on the CPU."""
    return load_pretrained(tiny_checkpoint, device="cpu")
