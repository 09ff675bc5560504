"""Values that several packages must agree on."""

IGNORE_INDEX = -100
"""Label of a position that carries no loss (PyTorch's cross entropy default)."""

IMAGE_TOKEN = "<image>"
"""Placeholder of one image in a prompt; the processor repeats it once per visual token."""
