"""The input of ``convllava cost``: models by name, and the sizes of images by path."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..constants import PRESET_NAMES
from ..support import did_you_mean
from . import options as opt

if TYPE_CHECKING:
    from ..model import ConvLlavaConfig

FILE_SUFFIX = re.compile(r"\.(?:[A-Za-z]{2,5}|jp2)")
"""Suffixes that make a name with one slash the path of a file; ``.5-7b`` is the end of a hub id."""

DATA_ENDINGS = (".json", ".jsonl")


def is_model(name: str) -> bool:
    """Return whether a name is that of a model (bundled, preset, checkpoint directory, hub id)."""
    from ..inference.checkpoint_files import BUNDLED, hub_id

    path = Path(name)
    if path.is_dir():
        return (path / "config.json").is_file()
    known = name in BUNDLED or name in PRESET_NAMES
    is_file_name = FILE_SUFFIX.fullmatch(path.suffix) is not None
    return not path.exists() and (known or (hub_id(name) is not None and not is_file_name))


def check_known(name: str) -> None:
    """Check that something to count exists, before torch is imported.

    Raises:
        ValueError: There is neither a file nor a model of this name.
    """
    path = Path(name)
    if path.exists() or is_model(name) or name == "-" or name.startswith(("http://", "https://", "data:")):
        return
    if not path.suffix and "/" not in name:
        raise ValueError(
            f"there is no file {name!r}, and it is not a model: models are {', '.join(model_names())}"
            f"{did_you_mean(name, model_names())}"
        )
    opt.check_exists(name)


def check_is_model(name: str) -> None:
    """Check that a name is that of a model.

    Raises:
        ValueError: The model is unknown.
    """
    if not is_model(name):
        raise ValueError(
            f"unknown model {name!r}: give a directory with config.json, a hub id, or one of "
            f"{', '.join(model_names())}{did_you_mean(name, model_names())}"
        )


def read_config(name: str) -> "ConvLlavaConfig":
    """Return the configuration of a model in any known layout; from the hub only the configuration is downloaded.

    Raises:
        ValueError: The model is unknown, or has another architecture.
    """
    from ..convert import open_config
    from ..inference.checkpoint_files import BUNDLED, hub_id, locate_config
    from ..model import preset

    check_is_model(name)
    if name not in BUNDLED and name in PRESET_NAMES:
        return preset(name)
    return open_config(locate_config(name), hub_id=hub_id(name))


def model_names() -> list[str]:
    """Return the names of the bundled models and the presets."""
    from ..inference.checkpoint_files import BUNDLED

    return [*BUNDLED, *(name for name in PRESET_NAMES if name not in BUNDLED)]


def image_sizes(what: Sequence[str], image_folder: Path | None = None) -> list[tuple[str, tuple[int, int]]]:
    """Return the name and the (height, width) of every image; files are read up to their header only.

    Raises:
        ValueError: A file is missing or is not an image.
    """
    found: list[tuple[str, tuple[int, int]]] = []
    for name in what:
        found += _sizes_of(name, image_folder)
    return found


def _sizes_of(name: str, image_folder: Path | None) -> list[tuple[str, tuple[int, int]]]:
    from ..images import IMAGE_SUFFIXES, image_files, image_size

    path = Path(name)
    if path.is_dir():
        return [(str(image), image_size(image)) for image in image_files(path)]
    if path.is_file() and path.suffix.lower() in DATA_ENDINGS:
        return _sizes_in_data(path, image_folder)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return [(name, image_size(path))]
    from ..inference import open_image

    image = open_image(name)  # a URL, standard input or a PDF; otherwise its message names what is wrong
    return [(name, (image.height, image.width))]


def _sizes_in_data(path: Path, image_folder: Path | None) -> list[tuple[str, tuple[int, int]]]:
    from ..data.sources import open_source
    from ..images import image_size

    source = open_source(path=path, image_folder=image_folder)
    images = [item for index in range(len(source)) for item in source[index].images if isinstance(item, Path)]
    if not images:
        raise ValueError(f"{path} holds no images, only text")
    return [(str(image), image_size(image)) for image in images]
