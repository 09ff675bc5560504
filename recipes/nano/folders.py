"""The command line of the scripts that make one model's folder out of another's."""

import argparse
from pathlib import Path


def read_folders(description: str | None, made: str) -> tuple[Path, Path]:
    """Read the folder of a trained model and that of what is made of it, which the help calls ``made``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument(made, type=Path)
    given = parser.parse_args()
    return given.trained, getattr(given, made)
