"""Write a trained nano model as the package carries it: bfloat16, in small shards.

python recipes/nano/bundle.py TRAINED src/convllava/assets/nano       # as `make nano` does at its end
"""

import torch
from folders import read_folders

from convllava import load_pretrained

SHARD_SIZE = "14MB"


def main() -> None:
    """Read the two folders from the command line and convert."""
    trained, bundled = read_folders(__doc__, "bundled")
    model, processor = load_pretrained(trained, dtype=torch.bfloat16, device="cpu")
    model.save_pretrained(bundled, max_shard_size=SHARD_SIZE)
    processor.save_pretrained(bundled)


if __name__ == "__main__":
    main()
