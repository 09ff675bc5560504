"""Images inside a terminal that can show them, in iTerm2's way or kitty's; elsewhere nothing."""

import base64
import os
import sys
from collections.abc import Mapping
from io import BytesIO
from typing import Any

LONGEST_SIDE = 480
"""Pixels; an image is shown to recognize it, not to read it."""

_KITTY_CHUNK = 4096


def show_image(image: Any) -> bool:
    """Show a PIL image; tell whether the terminal could."""
    protocol = protocol_of(os.environ) if sys.stdout.isatty() else None
    if protocol is None:
        return False
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    stream = BytesIO()
    small.save(stream, "PNG")
    sys.stdout.write(escape_sequence(protocol, stream.getvalue()) + "\n")
    sys.stdout.flush()
    return True


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """Tell from the environment which way a terminal understands; inside tmux and screen, none."""
    if environment.get("TMUX") or environment.get("STY"):
        return None
    if environment.get("KITTY_WINDOW_ID") or environment.get("TERM") in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    return "iterm2" if environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm") else None


def escape_sequence(protocol: str, png: bytes) -> str:
    """Return what makes a terminal show a PNG."""
    data = base64.b64encode(png).decode()
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:{data}\a"
    chunks = [data[start : start + _KITTY_CHUNK] for start in range(0, len(data), _KITTY_CHUNK)]
    parts = []
    for index, chunk in enumerate(chunks):
        control = "a=T,f=100," if index == 0 else ""
        parts.append(f"\x1b_G{control}m={int(index < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts)
