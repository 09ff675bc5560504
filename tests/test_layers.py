"""Who may import whom, and other rules on the source as a whole."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "convllava"

GROUND_FLOOR = {
    "constants",
    "geometry",
    "support",
    "compat",
    "image_bytes",
    "image_conversion",
    "generation_options",
    "json_schema",
    "image_options",
    "fetch",
    "images",
    "image_worker",
    "metrics",
}
INFERENCE_MAY = {"model", "convert", "analysis"} | GROUND_FLOOR
MAY_IMPORT: dict[str, set[str]] = {
    "": {"inference"},  # convllava/__init__.py hands out names of it, lazily
    "constants": set(),
    "geometry": set(),
    "support": set(),
    "compat": set(),
    "image_conversion": set(),
    "generation_options": set(),
    "json_schema": {"support"},
    "image_options": set(),
    "fetch": {"image_conversion"},
    "image_bytes": {"image_conversion", "fetch"},
    "images": {"image_bytes", "image_conversion", "fetch", "support"},
    "image_worker": {"image_conversion", "images"},
    "metrics": {"geometry"},
    "model": GROUND_FLOOR,
    "data": GROUND_FLOOR,
    "synthetic": {"data"} | GROUND_FLOOR,
    "convert": {"model"} | GROUND_FLOOR,
    "analysis": {"model"} | GROUND_FLOOR,
    "inference": INFERENCE_MAY,
    "train": {"data", "synthetic", "inference"} | INFERENCE_MAY,
    "eval": {"inference", "data", "synthetic", "analysis"} | GROUND_FLOOR,
    "serve": {"inference", "analysis"} | GROUND_FLOOR,
    "findings": {"train", "eval", "inference", "analysis"} | GROUND_FLOOR,
}
MAY_IMPORT["cli"] = set(MAY_IMPORT) | {"cli"}

HEAVY = {"torch", "transformers", "PIL", "numpy"}
OUTSIDE = re.compile(r"\.\./shared|(?<![\w.:/~<>-])/(?:work|home|root|tmp|usr|opt|mnt|var|etc|Users)/")


def package_of(module: str) -> str:
    """The part of convllava a dotted module belongs to; "" for convllava itself."""
    return [*module.split("."), ""][1]


def imported_modules(node: ast.AST, package: str) -> Iterator[str]:
    """Absolute dotted names that an import statement may load; ``package`` is what ``.`` means there."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start = package.rsplit(".", node.level - 1)[0] if node.level else ""
        base = ".".join(part for part in (start, node.module) if part)
        # `from convllava import data` may load a submodule, so every name counts as one.
        yield from (f"{base}.{alias.name}" for alias in node.names)


def ours(modules: Iterator[str]) -> Iterator[str]:
    yield from (module for module in modules if module.split(".")[0] == "convllava")


def layer_offences(tree: ast.AST, owner: str, package: str) -> Iterator[str]:
    """Imports, anywhere in a file of package ``owner``, that the table does not allow."""
    for node in ast.walk(tree):
        for module in ours(imported_modules(node, package)):
            target = package_of(module)
            is_package = target in MAY_IMPORT or target == "cli"
            if is_package and target != owner and target not in MAY_IMPORT[owner]:
                yield f"line {node.lineno}: {owner or 'convllava'} imports {module}"


def model_offences(tree: ast.AST) -> Iterator[str]:
    """Imports of ours that export cannot turn into `from .x import y`, the only form for code in a checkpoint.

    A file of the ground floor is copied with the model, so `from ..x import y` is allowed for these. The backends in
    model/acceleration are not copied, so no file but __init__.py may import them.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            ground_floor = node.level == 2 and node.module in GROUND_FLOOR
            if not ground_floor and (node.level > 1 or not node.module or "." in node.module):
                yield f"line {node.lineno}: neither `from .x import y` nor `from ..ground_floor import y`"
            elif node.level == 1 and node.module == "acceleration":
                yield f"line {node.lineno}: a model file imports a backend"
        elif isinstance(node, ast.Import | ast.ImportFrom) and list(ours(imported_modules(node, ""))):
            yield f"line {node.lineno}: imports convllava by its absolute name"


def print_offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"line {node.lineno}: calls print"


def run_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported; not those for the type checker."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for inner in ("body", "orelse", "handlers", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from run_at_import(getattr(node, inner, []))


def heavy_offences(tree: ast.Module, package: str) -> Iterator[str]:
    """Imports at the top of a command's file that cost time before its help can be shown."""
    light = GROUND_FLOOR | {"", "cli"}
    for node in run_at_import(tree.body):
        for module in imported_modules(node, package):
            top = module.split(".")[0]
            if top in HEAVY or (top == "convllava" and package_of(module) not in light):
                yield f"line {node.lineno}: imports {module} outside a function"


def offences(source: str, path: str) -> list[str]:
    """Everything wrong with a file at ``path``, relative to src/convllava."""
    tree = ast.parse(source)
    parts = path.removesuffix(".py").split("/")
    owner = "" if parts == ["__init__"] else parts[0]
    package = ".".join(["convllava", *parts[:-1]])
    found = list(layer_offences(tree, owner, package))
    if re.fullmatch(r"model/(?!__init__)\w+\.py", path):
        found += model_offences(tree)
    if owner == "cli":
        found += heavy_offences(tree, package)
    else:
        found += print_offences(tree)
    for number, line in enumerate(source.splitlines(), start=1):
        if OUTSIDE.search(line):
            found.append(f"line {number}: names a path outside the project")
    return found


FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_source_keeps_the_rules(path: str) -> None:
    assert offences((SOURCE / path).read_text(encoding="utf-8"), path) == []


def test_every_package_is_in_the_table() -> None:
    packages = {path.split("/")[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert packages <= MAY_IMPORT.keys()


def test_model_files_are_flat_but_for_the_backends() -> None:
    folders = {path.rpartition("/")[0] for path in FILES if path.startswith("model/")}
    assert folders == {"model", "model/acceleration"}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/collate.py", "from convllava.model import ConvLlavaConfig"),
        ("data/collate.py", "import convllava.model.processing"),
        ("data/collate.py", "from convllava import model"),
        ("data/collate.py", "from ..model import ConvLlavaConfig"),
        ("data/collate.py", "from .. import model"),
        ("data/sources.py", "from ..synthetic import SyntheticDataset"),
        ("synthetic/lines.py", "from ..inference.load import load_pretrained"),
        ("data/__init__.py", "def f() -> None:\n    from ..train import recipe"),
        ("train/trainer.py", "from convllava.eval import metrics"),
        ("geometry.py", "from .constants import IGNORE_INDEX"),
        ("__init__.py", "from .model import ConvLlavaConfig"),
        ("model/processing.py", "from convllava.model.configuration import ConvLlavaConfig"),
        ("model/processing.py", "from . import configuration"),
        ("model/processing.py", "from ..data import records"),
        ("model/vision.py", "from .acceleration import BACKENDS"),
        ("model/vision.py", "from .acceleration.cpu import CpuEncoder"),
        ("model/processing.py", "import convllava"),
        ("eval/runner.py", "print('done')"),
        ("eval/runner.py", "FOLDER = '../shared/reference'"),
        ("eval/runner.py", "FOLDER = '/home/me/data'"),
        ("cli/ask.py", "import torch"),
        ("cli/ask.py", "try:\n    from PIL import Image\nexcept ImportError:\n    pass"),
        ("cli/ask.py", "from convllava.inference import ask"),
    ],
)
def test_checker_flags(path: str, source: str) -> None:
    assert offences(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/collate.py", "from convllava.constants import IGNORE_INDEX\nfrom .samples import Sample"),
        ("synthetic/lines.py", "from ..data.samples import Sample\nfrom convllava import geometry"),
        ("train/trainer.py", "from convllava.inference import ask\nfrom convllava.data import mix"),
        ("model/processing.py", "import torch\nfrom .configuration import ConvLlavaConfig"),
        ("model/processing.py", "from ..constants import IMAGE_TOKEN"),
        ("cli/ask.py", "def ask() -> None:\n    import torch\n    print(torch.__version__)"),
        ("cli/ask.py", "if TYPE_CHECKING:\n    import torch"),
        ("serve/app.py", "ROUTE = '/v1/chat/completions'\nURL = 'https://example.org/home/page'"),
    ],
)
def test_checker_passes(path: str, source: str) -> None:
    assert offences(source, path) == []
