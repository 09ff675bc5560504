"""Export models and encoders for programs without this package: directories with their own code, backbones, ONNX."""

import ast
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .. import model as model_package
from ..model import ConvLlavaVisionBackbone, ConvLlavaVisionConfig
from ..support import atomic_directory, atomic_write, quiet_transformers, read_json, require, write_json
from .convert import Converted, convert
from .encoders import load_vision_tower
from .weights import DEFAULT_SHARD_SIZE

# Each class is named by the file that uses it: transformers loads every file of an auto_map with its own copies of its
# imports, and a model does not accept a configuration class of another copy.
_CONFIG = "modeling_convllava.ConvLlavaConfig"
_VISION_CONFIG = "vision_convllava.ConvLlavaVisionConfig"
_IMAGES = "processing_convllava.ConvLlavaImageProcessor"
_PROCESSOR = "processing_convllava.ConvLlavaProcessor"

AUTO_MAP = {
    "AutoConfig": _CONFIG,
    "AutoModel": "modeling_convllava.ConvLlavaModel",
    "AutoModelForImageTextToText": "modeling_convllava.ConvLlavaForConditionalGeneration",
}
_BACKBONE = "vision_convllava.ConvLlavaVisionBackbone"
# AutoBackbone of transformers up to 5.23 asks the hub even for a local directory, which AutoModel has to load instead
BACKBONE_AUTO_MAP = {"AutoConfig": _VISION_CONFIG, "AutoModel": _BACKBONE, "AutoBackbone": _BACKBONE}
BACKBONE_CODE = ("configuration_convllava.py", "vision_convllava.py", "depthwise.py")

_MODEL_FOLDER = Path(str(model_package.__file__)).parent
_PACKAGE_FOLDER = _MODEL_FOLDER.parent
_GROUND_FLOOR_IMPORT = re.compile(r"(?<![\w])from \.\.(\w+) import")


def export_with_code(
    source: Path,
    destination: Path,
    *,
    dtype: str | None = None,
    max_shard_size: str = DEFAULT_SHARD_SIZE,
    resolution: int | None = None,
    hub_id: str | None = None,
) -> Converted:
    """Write a checkpoint that carries its own model code.

    ``AutoModelForImageTextToText.from_pretrained(dir, trust_remote_code=True)`` and ``AutoProcessor`` then need no
    package but transformers.

    Args:
        source: A checkpoint directory in any known layout.
        destination: A directory that does not exist yet; it appears complete or not at all.
        dtype: Same as in :func:`convert`.
        max_shard_size: Same as in :func:`convert`.
        resolution: Same as in :func:`convert`.
        hub_id: Same as in :func:`convert`.

    Raises:
        ValueError: Same as in :func:`convert`.
        OSError: Same as in :func:`convert`.
    """
    with atomic_directory(destination) as folder:
        written = convert(
            source,
            folder / ".converted" / destination.name,  # the model card takes its title from the name
            dtype=dtype,
            max_shard_size=max_shard_size,
            resolution=resolution,
            hub_id=hub_id,
        )
        for path in sorted(written.folder.iterdir()):
            path.rename(folder / path.name)
        shutil.rmtree(folder / ".converted")
        _copy_code(folder)
        _add_auto_map(folder / "config.json", AUTO_MAP)
        _add_processor_auto_map(folder / "processor_config.json")
    return Converted(destination, "convllava with code", written.num_tensors, written.num_bytes)


def _copy_code(folder: Path) -> None:
    names = (path.name for path in sorted(_MODEL_FOLDER.glob("*.py")))
    _copy_flat(
        [name for name in names if name not in ("__init__.py", "presets.py", "nano_model.py", "growth.py")], folder
    )


def _copy_flat(names: Sequence[str], folder: Path) -> None:
    """Copy model files and the ground-floor modules that they import into one folder.

    Code in a checkpoint may import only its siblings, so ``from ..images import`` becomes ``from .images import``. Only
    the imported functions of ``compat`` are copied, since transformers requires every package that a file names.
    """
    waiting = [_MODEL_FOLDER / name for name in names]
    borrowed: set[str] = set()
    while waiting:
        path = waiting.pop()
        if (folder / path.name).exists():
            continue
        code = path.read_text(encoding="utf-8")
        (folder / path.name).write_text(_GROUND_FLOOR_IMPORT.sub(r"from .\1 import", code), encoding="utf-8")
        imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
        level = 1 if path.parent == _PACKAGE_FOLDER else 2
        ground_floor = [node for node in imports if node.level == level]
        borrowed |= {name.name for node in ground_floor if node.module == "compat" for name in node.names}
        waiting += [_PACKAGE_FOLDER / f"{node.module}.py" for node in ground_floor]
    if borrowed:
        compat = (_PACKAGE_FOLDER / "compat.py").read_text(encoding="utf-8")
        (folder / "compat.py").write_text(_definitions(compat, borrowed), encoding="utf-8")


def _definitions(code: str, names: set[str]) -> str:
    """Return a module's code without the functions and classes not in ``names`` and the imports for type checkers."""
    lines = code.splitlines(keepends=True)
    for node in reversed(ast.parse(code).body):
        is_left_out = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in names
        if is_left_out or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            del lines[node.lineno - 1 : node.end_lineno]
    return re.sub(r"\n{4,}", "\n\n\n", "".join(lines)).rstrip() + "\n"


def _add_auto_map(path: Path, auto_map: dict[str, str]) -> None:
    write_json(path, {**read_json(path), "auto_map": auto_map})


def _add_processor_auto_map(path: Path) -> None:
    content = read_json(path)
    content["auto_map"] = {"AutoProcessor": _PROCESSOR}
    content["image_processor"]["auto_map"] = {"AutoImageProcessor": _IMAGES, "AutoProcessor": _PROCESSOR}
    write_json(path, content)


def export_backbone(source: Path, destination: Path) -> ConvLlavaVisionConfig:
    """Write a model's vision encoder, or an encoder from elsewhere, as a backbone directory with its own code.

    ``AutoModel.from_pretrained(dir, trust_remote_code=True, out_features=["stage3", "stage5"])``, or ``AutoBackbone``
    for a hub id, then gives feature maps to a detector or segmenter; ``load_vision_tower`` reads the directory too.

    Args:
        source: Same as in :func:`load_vision_tower`.
        destination: A directory that does not exist yet; it appears complete or not at all.

    Returns:
        The encoder's configuration.

    Raises:
        ValueError: The encoder is not a ConvNeXt, or the destination is taken.
        OSError: Writing failed; nothing is left behind.
    """
    tower = load_vision_tower(source)
    config = tower.config
    if not isinstance(config, ConvLlavaVisionConfig):
        raise ValueError(f"{source} has a CLIP ViT, which transformers supports itself: save it with transformers")
    size = sum(tensor.nbytes for tensor in tower.state_dict().values())
    with quiet_transformers(), atomic_directory(destination, size) as folder:
        backbone = ConvLlavaVisionBackbone(config).to(tower.dtype)
        backbone.load_state_dict(tower.state_dict())
        backbone.save_pretrained(folder)
        _copy_flat(BACKBONE_CODE, folder)
        _add_auto_map(folder / "config.json", BACKBONE_AUTO_MAP)
    return config


ONNX_TOLERANCE = 1e-4
"""Largest accepted difference of an ONNX graph's outputs, relative to the largest output."""


@dataclass(frozen=True)
class OnnxCheck:
    """One run of an exported graph.

    Args:
        shape: Batch size, height and width of the input.
        difference: Largest difference of the outputs, relative to the largest output.
    """

    shape: tuple[int, int, int]
    difference: float


class _Encoder(nn.Module):
    """Images (N, 3, H, W) to visual tokens (N, H // stride * W // stride, width), row-major."""

    def __init__(self, tower: nn.Module, projector: nn.Module | None) -> None:
        super().__init__()
        self.tower, self.projector = tower, projector

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.tower(pixel_values).last_hidden_state  # (N, width, H // stride, W // stride)
        tokens: Tensor = features.flatten(2).transpose(1, 2)  # (N, positions, width)
        return tokens if self.projector is None else self.projector(tokens)


def export_onnx(tower: PreTrainedModel, projector: nn.Module | None, destination: Path) -> list[OnnxCheck]:
    """Write a vision encoder, with or without projector, as ONNX for any batch size, height and width.

    The graph maps images (N, 3, H, W) to visual tokens (N, H // stride * W // stride, width). Heights and widths are
    multiples of the output stride: crop or pad images before.

    Args:
        tower: A :class:`ConvLlavaVisionModel` in float32 on the CPU.
        projector: The model's projector; None exports the features before it.
        destination: A path that ends in ``.onnx``; it appears only if the graph agrees with the encoder.

    Returns:
        The differences at three shapes.

    Raises:
        ValueError: A package is missing, the encoder is not a ConvNeXt, or the graph gives other values.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, extra="export", purpose="ONNX exports")
    if not isinstance(tower.config, ConvLlavaVisionConfig):
        raise ValueError("an ONNX export with free sizes needs a ConvNeXt; this encoder is a CLIP ViT")
    if destination.suffix != ".onnx" or destination.exists() or not destination.parent.is_dir():
        raise ValueError(
            f"{destination} cannot be written: give a new name that ends in .onnx, in a directory that exists"
        )
    encoder, stride = _Encoder(tower, projector).eval(), tower.config.output_stride
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
    example = torch.zeros(2, tower.config.num_channels, 2 * stride, 3 * stride)
    with atomic_write(destination) as temporary:
        # torch.onnx warns about a missing torchvision, which the graph does not need
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with torch.no_grad(), quiet_transformers():
            program = torch.onnx.export(
                encoder,
                (example,),
                dynamo=True,
                input_names=["pixel_values"],
                output_names=["tokens"],
                dynamic_shapes={"pixel_values": {0: batch, 2: stride * rows, 3: stride * columns}},
                verbose=False,
            )
        if program is None:
            raise ValueError("torch.onnx.export returned no program: install the versions in constraints.txt")
        program.save(str(temporary), external_data=False)
        return [_check_onnx(encoder, temporary, shape, stride) for shape in ((1, 1, 1), (2, 3, 2), (3, 2, 5))]


def _check_onnx(encoder: nn.Module, path: Path, feature_shape: tuple[int, int, int], stride: int) -> OnnxCheck:
    """Run a graph for a batch of images whose feature maps have a shape (N, height, width)."""
    import onnxruntime

    number, height, width = feature_shape
    shape = (number, height * stride, width * stride)
    pixels = torch.randn(number, 3, *shape[1:], generator=torch.Generator().manual_seed(0))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (tokens,) = session.run(None, {"pixel_values": pixels.numpy()})
    with torch.no_grad():
        expected = encoder(pixels)
    difference = float((torch.from_numpy(tokens) - expected).abs().max() / expected.abs().max())
    if not difference <= ONNX_TOLERANCE:
        raise ValueError(
            f"the ONNX graph differs by {difference:.2g} at {shape}, more than {ONNX_TOLERANCE}: not written"
        )
    return OnnxCheck(shape, difference)
