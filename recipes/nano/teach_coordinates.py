"""Give a nano model a token for each coordinate of a box: ``[0.12,`` begins it, `` 0.34,`` goes on, `` 0.56]`` ends it.

python recipes/nano/teach_coordinates.py runs/nano/24_average runs/nano/25_coordinates

A box in characters takes 24 tokens and in these 4; and where a thing stands is one choice among a hundred instead of
digits that must agree. The text stays the same. New rows of the embedding start as waves over 0 to 1, so that numbers
near each other have rows near each other.
"""

import math

import torch
from folders import read_folders
from teach_words import WORD, grow_vocabulary

from convllava import load_pretrained
from convllava.model import ConvLlavaForConditionalGeneration

COORDINATE = r"[\[ ][01]\.\d\d[,\]]"
WAVES = 12
"""The shortest wave is a sixth of the image's side: shorter ones would set neighbors apart again."""


def main() -> None:
    """Read the two folders from the command line and convert."""
    trained, taught = read_folders(__doc__, "taught")
    model, processor = load_pretrained(trained, dtype=torch.float32, device="cpu")
    values = [index / 100 for index in range(101)]
    words = [form.format(value) for form in ("[{:.2f},", " {:.2f},", " {:.2f}]") for value in values]
    grow_embedding(model, torch.tensor(values * 3))
    model.save_pretrained(taught)
    processor.save_pretrained(taught)
    grow_vocabulary(taught / "tokenizer.json", words, pattern=f"{WORD}|{COORDINATE}")
    print(f"{len(words)} coordinates; the vocabulary has {model.config.text_config.vocab_size} tokens")


def grow_embedding(model: ConvLlavaForConditionalGeneration, values: torch.Tensor) -> None:
    """Add a row for each value, in place, as far from the middle of the table as the others are on average."""
    table = model.get_input_embeddings().weight.detach().clone()
    angles = math.pi * values[:, None] * torch.arange(1, WAVES + 1)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    directions, _ = torch.linalg.qr(torch.randn(table.shape[1], waves.shape[1], generator=torch.manual_seed(25)))
    middle = table.mean(dim=0)
    spread = (table - middle).norm(dim=1).mean()
    rows = middle + spread * torch.nn.functional.normalize(waves, dim=1) @ directions.T
    model.resize_token_embeddings(len(table) + len(rows), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[len(table) :] = rows


if __name__ == "__main__":
    main()
