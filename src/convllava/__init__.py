"""ConvLLaVA: images of any size and shape, compressed by a five-stage ConvNeXt, for a language model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.asking import ask
    from .inference.loading import load_pretrained

__version__ = "0.1.0"

__all__ = ["__version__", "ask", "load_pretrained"]


def __getattr__(name: str) -> Any:
    """Import the inference package when one of its names is first used: that takes seconds, this nothing."""
    if name not in ("ask", "load_pretrained"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from convllava import inference

    return getattr(inference, name)
