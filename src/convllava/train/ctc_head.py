"""The encoder learns to read before any language model is trained on it.

A small head predicts characters or blanks at the positions of a feature map, left to right, and connectionist temporal
classification (CTC; Graves et al., 2006) aligns them with a text: that of a line, or that of each position
(``synthetic.positions``). Every position learns from every image at once, which teaches an encoder from scratch the
letters in a fraction of the time that training with a language model takes. The head is discarded afterwards.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..constants import IGNORE_INDEX
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from ..model.modeling_convllava import encode_images, smallest_side
from ..synthetic import POSITION_END

PIXELS_PER_STEP = 128
"""Image area per predicted character or blank: 8 predictions per position of 32 x 32 pixels, 32 per 64 x 64."""

_STEP_WIDTH = 64
"""Channels of one prediction; with a full projection to the vocabulary the head would outweigh the encoder."""


class EncoderWithCtcHead(nn.Module):
    """A model's vision encoder with a character head; takes the same batches as the model.

    Args:
        model: Model whose vision tower is trained, shared and not copied.
        position_end: Id of the token between the texts of two positions, in samples that spell position by position.
    """

    def __init__(self, model: ConvLlavaForConditionalGeneration, position_end: int) -> None:
        super().__init__()
        config = model.config
        self.vision_tower = model.model.vision_tower
        self.output_stride = config.output_stride
        self.blank, self.end = config.text_config.pad_token_id, config.text_config.eos_token_id
        self.position_end = position_end
        self.steps_per_position = max(1, config.output_stride**2 // PIXELS_PER_STEP)
        width = config.vision_config.hidden_size
        self.steps = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, self.steps_per_position * _STEP_WIDTH), nn.GELU()
        )
        self.characters = nn.Linear(_STEP_WIDTH, config.text_config.vocab_size)

    @classmethod
    def from_model(
        cls, model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor
    ) -> "EncoderWithCtcHead":
        """Add a fresh head to a model's encoder.

        Raises:
            ValueError: The tokenizer has no single token for a tab, the separator of positions.
        """
        position_end = processor.tokenizer.encode(POSITION_END, add_special_tokens=False)
        if len(position_end) != 1:
            raise ValueError(
                f"training_stage encoder needs a tokenizer with one token for a tab, this one has {len(position_end)}"
            )
        return cls(model, position_end[0])

    def save_pretrained(self, folder: str | Path) -> None:
        """Save encoder and head as one safetensors file."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), Path(folder) / "model.safetensors", metadata={"format": "pt"})

    def forward(
        self,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Return the loss: negative log likelihood of the texts per supervised token.

        The loss is infinite, which stops the training and names the samples, if a text has more characters than its
        image (or position) has predictions. Without images it is zero.

        Args:
            pixel_values: (N, 3, H, W), one image for each of the N samples; None for a batch of samples left out.
            image_sizes: (N, 2), (height, width) in pixels.
            labels: (N, T), -100 where nothing is supervised: the text of a line, or the texts of all positions in
                row-major order, separated by ``position_end``.
            num_items_in_batch: Supervised tokens of the global batch; those of this batch by default.

        Raises:
            ValueError: There are no labels, or a sample has no image, or more than one.
        """
        if labels is None:
            raise ValueError("the loss needs labels (N, T)")
        if pixel_values is None or image_sizes is None or len(labels) != len(image_sizes):
            if bool((labels != IGNORE_INDEX).any()):
                raise ValueError(
                    "training_stage encoder learns from samples with one image each, and a batch of "
                    f"{len(labels)} samples has {0 if image_sizes is None else len(image_sizes)} images: leave the "
                    "others out of the data"
                )
            return {"loss": self._zero_from_blank_image()}
        texts = [self._split(sample) for sample in labels.tolist()]
        strips = self.strips(pixel_values, image_sizes, [len(positions) for positions in texts])
        log_probabilities, lengths = self.read(strips)
        flat = [text for positions in texts for text in positions]
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

    def _zero_from_blank_image(self) -> Tensor:  # -> ()
        """Read the smallest blank image and multiply by zero: a process without images must join the collectives."""
        device, side = self.characters.weight.device, smallest_side(self.vision_tower.config)
        sizes = torch.tensor([[side, side]], device=device)
        blank = torch.zeros(1, self.vision_tower.config.num_channels, side, side, device=device)
        return self.read(self.strips(blank, sizes, [1]))[0].sum() * 0.0

    def read(self, strips: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict characters along strips of S texts.

        Args:
            strips: Features (w, C) of w positions for each text.

        Returns:
            Log probabilities (S, steps, V), padded at the end, and the number of steps of each text (S,).
        """
        features = nn.utils.rnn.pad_sequence(strips, batch_first=True)  # (S, w, C)
        scores = self.characters(self.steps(features).unflatten(-1, (self.steps_per_position, -1)).flatten(1, 2))
        lengths = torch.tensor([len(strip) * self.steps_per_position for strip in strips])
        return torch.log_softmax(scores, dim=-1), lengths

    def _split(self, labels: list[int]) -> list[list[int]]:
        """Return the supervised text of a sample, split into positions."""
        positions: list[list[int]] = [[]]
        for label in labels:
            if label == self.position_end:
                positions.append([])
            elif label not in (IGNORE_INDEX, self.end):
                positions[-1].append(label)
        return positions

    def strips(self, pixel_values: Tensor, image_sizes: Tensor, counts: list[int]) -> list[Tensor]:
        """Return the features (w, C) that each text is read from: one position, or a line averaged over its height.

        Args:
            pixel_values: (N, 3, H, W).
            image_sizes: (N, 2), (height, width) in pixels.
            counts: Number of texts of each image: one, or as many as positions.

        Raises:
            ValueError: An image has several texts, but not one for each position.
        """
        tokens = encode_images(self.vision_tower, pixel_values, image_sizes)  # (sum of h * w, C)
        grids = [(height, width) for height, width in (image_sizes // self.output_stride).tolist()]
        maps = tokens.split([height * width for height, width in grids])
        strips: list[Tensor] = []
        for positions, grid, count in zip(maps, grids, counts, strict=True):
            if count == 1:
                strips.append(positions.unflatten(0, grid).mean(dim=0))
            elif count == len(positions):
                strips += positions.split(1)
            else:
                raise ValueError(
                    f"an image of {grid[0]}x{grid[1]} positions has the texts of {count}: set the data's option stride "
                    f"to the encoder's, {self.output_stride}"
                )
        return strips
