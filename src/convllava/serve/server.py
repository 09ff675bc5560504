"""The server process: socket, uvicorn, graceful shutdown."""

import gc
import logging
import math
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from .limits import PatientProtocol
from .settings import Settings

MAX_HEAD_BYTES = 1 << 15
SWITCH_SECONDS = 1e-3
"""Time after which a thread lets the others run Python code. A step of the model waits for it hundreds of times."""

BACKLOG = 2048

logger = logging.getLogger("convllava.serve")


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Bind before the model is loaded, so that a taken port is reported at once.

    Raises:
        ValueError: The port is taken, or the host has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen at {host}, port {port}: {reason}; give another --host or --port") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Accepts no new requests after a signal to stop, and lets running ones finish."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain; a second Ctrl+C stops the server at once."""
        app: Any = self.config.app
        app.state.engine.draining = True
        logger.warning("stopping on %s: running requests may finish", signal.Signals(sig).name)
        # uvicorn's own method would end the process with the signal's status after an orderly drain
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def run(app: FastAPI, listener: socket.socket, settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl+C."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # the garbage collector would look through all of torch, during answers and at the end
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
    )
    Server(config).run(sockets=[listener])
