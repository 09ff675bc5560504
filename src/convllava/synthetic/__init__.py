"""Generated images with questions, answers and boxes: text lines, documents and scenes of shapes."""

from .dataset import ENDLESS, KINDS, SyntheticDataset
from .example import Example, Kind
from .export import write_dataset
from .positions import POSITION_END
from .preview import preview_sheet
from .printed import sizes_of

__all__ = [
    "ENDLESS",
    "KINDS",
    "POSITION_END",
    "Example",
    "Kind",
    "SyntheticDataset",
    "preview_sheet",
    "sizes_of",
    "write_dataset",
]
