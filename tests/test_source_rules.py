"""Rules on the size of functions, on private names of other libraries, on opening images, and on what is printed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "convllava"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

LONGEST = 60
MOST_PARAMETERS = 12
OTHER_LIBRARIES = {
    "accelerate",
    "bitsandbytes",
    "datasets",
    "peft",
    "PIL",
    "starlette",
    "tokenizers",
    "torch",
    "torchao",
    "transformers",
    "typer",
    "uvicorn",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """All functions but Triton kernels, which take every pointer, size and block size as an argument."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and "triton.jit" not in map(ast.unparse, node.decorator_list):
            yield node


def own_names() -> set[str]:
    """Names that this package defines: what begins with an underscore and is not among them is borrowed."""
    names: set[str] = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.alias(name=name, asname=other):
                    names.add(other or name)
    return names


OWN = own_names()


def is_private(name: str) -> bool:
    return re.match(r"_[A-Za-z]", name) is not None


def borrowed(tree: ast.AST) -> Iterator[str]:
    """Private names of other libraries that a file imports, reads or sets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module.split(".")[0] in OTHER_LIBRARIES:
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                yield from (f"line {node.lineno}: {name}" for name in names if is_private(name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            foreign = isinstance(node.ctx, ast.Load) and node.attr not in OWN
            set_on_other = isinstance(node.ctx, ast.Store) and not is_self(node.value)
            if foreign or set_on_other:
                yield f"line {node.lineno}: {node.attr}"


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@pytest.mark.parametrize("path", TREES)
def test_functions_fit_on_a_screen(path: str) -> None:
    found = []
    for function in functions(TREES[path]):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        arguments = function.args
        parameters = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        if lines > LONGEST:
            found.append(f"{function.name} has {lines} lines, more than {LONGEST}")
        if parameters > MOST_PARAMETERS:
            found.append(f"{function.name} has {parameters} parameters, more than {MOST_PARAMETERS}")
    assert found == []


@pytest.mark.parametrize("path", [path for path in TREES if path != "compat.py"])
def test_private_names_of_other_libraries_are_in_compat(path: str) -> None:
    assert list(borrowed(TREES[path])) == []


@pytest.mark.parametrize(
    "source",
    [
        "from transformers._x import y",
        "from torch.nn import _reduction",
        "torch._C._mkl_linear(x)",
        "model._is_hf_initialized = True",
    ],
)
def test_borrowed_names_are_found(source: str) -> None:
    assert list(borrowed(ast.parse(source)))


def test_own_private_names_are_not_borrowed() -> None:
    assert not list(borrowed(ast.parse("from . import _x\nself._anything = 1\nfrom transformers import AutoModel")))


WITHOUT_ASSERTS = ("model/", "convert/", "inference/", "analysis/")


@pytest.mark.parametrize("path", [path for path in TREES if path.startswith(WITHOUT_ASSERTS)])
def test_nothing_is_checked_by_assert(path: str) -> None:
    """``python -O`` removes asserts, and a user sees a bare AssertionError."""
    lines = [node.lineno for node in ast.walk(TREES[path]) if isinstance(node, ast.Assert)]
    assert not lines, f"{path}: assert in lines {lines}; raise an error that says what to do"


REPOSITORY = SOURCE.parents[1]
PROGRAMS = [
    path
    for folder in ("src", "benchmarks", "examples", "recipes")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
]


def opened_in_any_format(tree: ast.AST) -> Iterator[str]:
    """Calls of Pillow's ``Image.open`` without a list of formats."""
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
        if is_call and "formats" not in {keyword.arg for keyword in node.keywords}:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_images_are_opened_in_known_formats() -> None:
    """Pillow opens every format that it knows otherwise, and runs Ghostscript on what calls itself an EPS."""
    found = {path: list(opened_in_any_format(ast.parse(path.read_text(encoding="utf-8")))) for path in PROGRAMS}
    wrong = {str(path): calls for path, calls in found.items() if calls}
    assert not wrong, f"{wrong}: use convllava.images.open_image or undecoded, or give formats="


def test_an_image_opened_in_any_format_is_found() -> None:
    assert list(opened_in_any_format(ast.parse("with Image.open(path) as image: pass")))
    assert not list(opened_in_any_format(ast.parse("PIL.Image.open(path, formats=('PNG',))")))


PRINTERS = ("cli/options.py", "cli/main.py", "json_schema.py")
"""Files that print: the first two escape control characters, and all others call them; the last is a worker that writes
to its parent, whose error is then escaped."""


def calls_in(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_what_is_printed_is_escaped() -> None:
    """Names of files and texts of data may hold sequences that drive a terminal, or markup."""
    found = [
        f"{path}, line {call.lineno}"
        for path, tree in TREES.items()
        for call in calls_in(tree)
        if path not in PRINTERS and ast.unparse(call.func) in ("print", "Console", "sys.stdout.write")
    ]
    assert not found, f"{found}: print by cli.options.say, show, remark or console"


def loses_bytes(call: ast.Call) -> bool:
    """Return whether a call decodes or encodes what it cannot as something else, or not at all."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "errors"]
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("decode", "encode"):
        given += call.args[1:2]
    return any(isinstance(one, ast.Constant) and one.value in ("replace", "ignore") for one in given)


def test_no_bytes_are_lost() -> None:
    """A file that is not UTF-8 is an error that names it; what cannot be written is escaped."""
    found = [
        f"{path}, line {call.lineno}" for path, tree in TREES.items() for call in calls_in(tree) if loses_bytes(call)
    ]
    assert not found, f"{found}: name the file and the record, or use support.encodable"


@pytest.mark.parametrize("source", ["data.decode('utf-8', errors='replace')", "text.encode('ascii', 'ignore')"])
def test_lost_bytes_are_found(source: str) -> None:
    assert any(map(loses_bytes, calls_in(ast.parse(source))))
