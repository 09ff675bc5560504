"""An OpenAI-compatible HTTP API, requests answered in batches, and a page to talk about images."""

from .app import create_app
from .server import address_of, bind, run
from .settings import Settings

__all__ = ["Settings", "address_of", "bind", "create_app", "run"]
