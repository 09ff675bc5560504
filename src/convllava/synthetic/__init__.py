"""Images drawn by us, with questions, answers and boxes: text lines, documents and scenes of shapes."""

from .cells import CELL_END
from .dataset import ENDLESS, KINDS, SyntheticDataset
from .example import Example, Kind
from .export import write_dataset
from .preview import preview_sheet

__all__ = ["CELL_END", "ENDLESS", "KINDS", "Example", "Kind", "SyntheticDataset", "preview_sheet", "write_dataset"]
