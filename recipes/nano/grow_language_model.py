"""Give a nano model a wider and deeper language model that, before any training, says what the narrow one says.

python recipes/nano/grow_language_model.py runs/nano/15_instruct runs/nano/16_grown

New channels are written (by the projector and by every layer) but not read yet, new heads and hidden units are read
but write nothing, and new layers write nothing. Only the norms see the new channels, a little.
"""

from typing import Any

import torch
from folders import read_folders
from torch import Tensor

from convllava import load_pretrained
from convllava.model import ConvLlavaConfig, ConvLlavaForConditionalGeneration

WIDTH, LAYERS, HIDDEN = 256, 6, 704
SPREAD = 0.02
READERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
WRITERS = ("o_proj", "down_proj")


def main() -> None:
    """Read the two folders from the command line and convert."""
    trained, grown = read_folders(__doc__, "grown")
    torch.manual_seed(0)
    model, processor = load_pretrained(trained, dtype=torch.float32, device="cpu")
    larger = grow(model)
    larger.save_pretrained(grown)
    processor.save_pretrained(grown)
    print(f"{model.num_parameters():,} parameters grew to {larger.num_parameters():,}")


def grow(model: ConvLlavaForConditionalGeneration) -> ConvLlavaForConditionalGeneration:
    """Return the larger model."""
    values: dict[str, Any] = model.config.to_dict()
    text = values["text_config"]
    heads = WIDTH // text["head_dim"]
    old_width, old_layers = text["hidden_size"], text["num_hidden_layers"]
    text |= {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": HIDDEN}
    text |= {"num_attention_heads": heads, "num_key_value_heads": heads}
    grown = ConvLlavaForConditionalGeneration(ConvLlavaConfig.from_dict(values))
    old, new = model.state_dict(), grown.state_dict()
    for name, value in new.items():
        value.copy_(widened(name, old.get(name), value, old_width))
    for index in range(old_layers, LAYERS):  # fresh layers say nothing yet
        for writer in ("self_attn.o_proj", "mlp.down_proj"):
            new[f"model.language_model.layers.{index}.{writer}.weight"].zero_()
    grown.generation_config = model.generation_config
    return grown


def widened(name: str, old: Tensor | None, new: Tensor, old_width: int) -> Tensor:
    """Return a tensor of the larger model: the smaller one's in its corner, and around it what its role asks for."""
    if old is None:
        return torch.ones_like(new) if "norm" in name else torch.randn_like(new) * SPREAD
    if old.shape == new.shape:
        return old
    if "norm" in name:  # the mean of squares is over more channels now
        return torch.cat([old * (old_width / WIDTH) ** 0.5, torch.ones(WIDTH - old_width)])
    padded = torch.zeros_like(new)
    rows = old.shape[0]
    if new.ndim == 1:
        padded[:rows] = old
        return padded
    columns = old.shape[1]
    padded[:rows, :columns] = old
    if any(reader in name for reader in READERS) or "projector" in name or any(writer in name for writer in WRITERS):
        padded[rows:, :columns] = torch.randn(new.shape[0] - rows, columns) * SPREAD
    return padded


if __name__ == "__main__":
    main()
