"""The sizes of images that a model was trained on, as its checkpoints record them.

`convllava.analysis.choose_size` keeps the images of a request within them.
"""

from pathlib import Path

from torch import Tensor

from ..model import ConvLlavaConfig
from ..support import read_json, write_json
from .engine import Engine

FILE = "visual_tokens.json"
"""File of a checkpoint to resume from."""

KEY = "trained_visual_tokens"


class TrainedSizes:
    """Fewest and most visual tokens of one image: those of the starting checkpoint's training, and of this run.

    Args:
        config: Configuration of the model in the state in which training starts.
    """

    def __init__(self, config: ConvLlavaConfig) -> None:
        self._stride = config.output_stride
        known = config.visual_token_range
        self._counts: list[int] = list(known or ())

    def add(self, image_sizes: Tensor | None) -> None:
        """Note images of these (height, width) at the input of the vision encoder, int64 (N, 2)."""
        if image_sizes is not None and len(image_sizes):
            tokens = (image_sizes // self._stride).prod(dim=1).clamp(min=1)  # (N,)
            counts = [*self._counts, int(tokens.min()), int(tokens.max())]
            self._counts = [min(counts), max(counts)]

    def load(self, checkpoint: Path) -> None:
        """Continue with what a checkpoint has recorded; those of earlier versions have recorded nothing."""
        if (checkpoint / FILE).is_file():
            self._counts += read_json(checkpoint / FILE)[KEY] or []

    def write(self, folder: Path, engine: Engine, *, to_resume: bool = False) -> None:
        """Write the range over all processes into a saved model's configuration; every process calls it.

        Args:
            folder: Folder of the model. A folder of adapters alone has no configuration and stays as it is.
            engine: Distribution over processes.
            to_resume: Whether the folder is a checkpoint from which training may resume.
        """
        counts = engine.all_values([min(self._counts, default=0), max(self._counts, default=0)])
        found = [count for count in counts if count > 0]  # a process without images has zeros
        values = {KEY: [min(found), max(found)] if found else None}
        if engine.is_main and to_resume:
            write_json(folder / FILE, values)
        if engine.is_main and (folder / "config.json").is_file():
            write_json(folder / "config.json", read_json(folder / "config.json") | values)
