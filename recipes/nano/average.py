"""Average the weights of several nano models of one training's end, which are often better together than any alone.

python recipes/nano/average.py runs/nano/18_instruct runs/nano/19_instruct_scenes runs/nano/21_average

Wortsman et al., Model soups, arXiv 2203.05482. The models must be of one shape and one start; a folder given twice
counts twice.
"""

import argparse
from pathlib import Path

import torch

from convllava import load_pretrained


def main() -> None:
    """Read the folders from the command line and write the last one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, nargs="+")
    parser.add_argument("averaged", type=Path)
    folders = parser.parse_args()
    model, processor = load_pretrained(folders.trained[0], dtype=torch.float32, device="cpu")
    others = [load_pretrained(folder, dtype=torch.float32, device="cpu")[0] for folder in folders.trained[1:]]
    states = [other.state_dict() for other in others]
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(torch.stack([value, *(state[name] for state in states)]).mean(0))
    model.save_pretrained(folders.averaged)
    processor.save_pretrained(folders.averaged)


if __name__ == "__main__":
    main()
