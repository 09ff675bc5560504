"""Write a trained nano model as the package carries it: bfloat16, in small shards.

python recipes/nano/bundle.py runs/nano/24_average src/convllava/assets/nano
"""

import argparse
from pathlib import Path

import torch

from convllava import load_pretrained

SHARD_SIZE = "14MB"


def main() -> None:
    """Read the two folders from the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("bundled", type=Path)
    folders = parser.parse_args()
    model, processor = load_pretrained(folders.trained, dtype=torch.bfloat16, device="cpu")
    model.save_pretrained(folders.bundled, max_shard_size=SHARD_SIZE)
    processor.save_pretrained(folders.bundled)


if __name__ == "__main__":
    main()
