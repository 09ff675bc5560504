"""From a checkpoint and a picture to an answer."""

from .loading import load_pretrained

__all__ = ["load_pretrained"]
