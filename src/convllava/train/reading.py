"""The encoder learns to read by itself, before any language model looks at it.

A small head reads characters, or blanks, from the cells of a feature map, left to right, and connectionist temporal
classification (Graves et al., 2006) aligns them with a text: that of a whole line, or that of each cell. Every cell
learns from every image at once, which teaches an encoder from scratch its letters in a fraction of the time that a
language model behind it needs. The head is thrown away afterwards.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..constants import IGNORE_INDEX
from ..model import ConvLlavaForConditionalGeneration

PIXELS_PER_STEP = 128
"""Area of the image that holds one character or blank: 8 steps in a cell of 32 x 32 pixels, 32 in one of 64 x 64."""

_STEP_WIDTH = 64
"""Channels of one step; the head would outweigh the encoder if each step had its own map to the vocabulary."""


class EncoderReader(nn.Module):
    """A model's encoder with a character head; takes the same batches as the model.

    Args:
        model: Its vision tower is shared, not copied; nothing else of it is held.
        cell_end: Token between the texts of two cells, in samples that spell cells one by one.
    """

    accepts_loss_kwargs = True

    def __init__(self, model: ConvLlavaForConditionalGeneration, cell_end: int) -> None:
        super().__init__()
        config = model.config
        self.vision_tower = model.model.vision_tower
        self.output_stride = config.output_stride
        self.blank, self.end = config.text_config.pad_token_id, config.text_config.eos_token_id
        self.cell_end = cell_end
        self.steps_per_cell = config.output_stride**2 // PIXELS_PER_STEP
        width = config.vision_config.hidden_sizes[-1]
        self.steps = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.steps_per_cell * _STEP_WIDTH), nn.GELU())
        self.characters = nn.Linear(_STEP_WIDTH, config.text_config.vocab_size)

    def forward(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Return the loss: negative log likelihood of the texts, per supervised token.

        It is infinite, which stops the training and names the samples, when a text has more characters than its
        image, or its cell, has steps.

        Args:
            pixel_values: (N, 3, H, W), one image a row.
            image_sizes: (N, 2), (height, width) in pixels.
            labels: (N, T), -100 where nothing is supervised: the text of a single line, or one text for each cell,
                row by row, with ``cell_end`` between them.
            num_items_in_batch: Supervised tokens of the whole update; by default those of this batch.
        """
        texts = [self._split(row) for row in labels.tolist()]
        strips = self._strips(pixel_values, image_sizes, [len(parts) for parts in texts])
        log_probabilities, lengths = self.read(strips)
        flat = [text for parts in texts for text in parts]
        losses = nn.functional.ctc_loss(
            log_probabilities.transpose(0, 1),
            torch.tensor([token for text in flat for token in text], device=labels.device),
            lengths,
            torch.tensor([len(text) for text in flat]),
            blank=self.blank,
            reduction="none",
        )
        tokens = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORE_INDEX).sum()
        return {"loss": losses.sum() / tokens}

    def read(self, strips: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return log probabilities (S, steps, V) of strips of cells (w, C), padded at the end, and their steps (S,)."""
        features = nn.utils.rnn.pad_sequence(strips, batch_first=True)
        scores = self.characters(self.steps(features).unflatten(-1, (self.steps_per_cell, -1)).flatten(1, 2))
        lengths = torch.tensor([len(strip) * self.steps_per_cell for strip in strips])
        return torch.log_softmax(scores, dim=-1), lengths

    def _split(self, labels: list[int]) -> list[list[int]]:
        """Return the supervised text of a row, cut at the ends of cells."""
        parts: list[list[int]] = [[]]
        for label in labels:
            if label == self.cell_end:
                parts.append([])
            elif label not in (IGNORE_INDEX, self.end):
                parts[-1].append(label)
        return parts

    def _strips(self, pixel_values: Tensor, image_sizes: Tensor, counts: list[int]) -> list[Tensor]:
        """Return what each text is read from, (w, C): an image's cells one by one, or a line averaged over its height.

        Raises:
            ValueError: When an image has several texts, but not one for each of its cells.
        """
        tokens = self.vision_tower(pixel_values, image_sizes).last_hidden_state  # (sum of h * w, C)
        grids = [(height, width) for height, width in (image_sizes // self.output_stride).tolist()]
        maps = tokens.split([height * width for height, width in grids])
        strips: list[Tensor] = []
        for cells, grid, count in zip(maps, grids, counts, strict=True):
            if count == 1:
                strips.append(cells.unflatten(0, grid).mean(dim=0))
            elif count == len(cells):
                strips += cells.split(1)
            else:
                raise ValueError(
                    f"an image of {grid[0]}x{grid[1]} cells comes with the texts of {count} cells; give the data's "
                    f"option cell the encoder's stride, {self.output_stride}"
                )
        return strips
