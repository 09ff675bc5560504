"""The package as it is installed elsewhere: everything is in the wheel, and the program answers from it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and, if it fails, show what it said."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, as a build leaves files beside the sources; no network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = repository / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder / "dist", folder / "source")
    (built,) = (folder / "dist").glob("convllava-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
        *("--target", folder, wheel),
    )
    return folder


def elsewhere(installed: Path) -> dict[str, str]:
    """An environment in which the installed package comes before the checkout."""
    return {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}


def test_wheel_holds_every_file_of_the_package(wheel: Path, repository: Path) -> None:
    source = repository / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "convllava").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert "convllava/py.typed" in packed
    assert "convllava/assets/nano/config.json" in packed
    for folder, suffix in (("assets/nano", ".safetensors"), ("synthetic/fonts", ".ttf")):
        assert any(name.startswith(f"convllava/{folder}/") and name.endswith(suffix) for name in packed)


def test_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        texts = {Path(name).name: archive.read(name).decode() for name in names if ".dist-info/" in name}
    entry_points, metadata = texts["entry_points.txt"], texts["METADATA"]
    assert "convllava = convllava.cli.main:main" in entry_points
    assert "[vllm.general_plugins]\nconvllava = convllava.model:register_vllm" in entry_points
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_installed_program_answers(installed: Path, tmp_path: Path) -> None:
    from convllava.synthetic import SyntheticDataset

    image = tmp_path / "line.png"
    SyntheticDataset("line", count=1, seed=0)[0].images[0].save(image)
    environment = elsewhere(installed)

    code = "import convllava; print(convllava.__file__)"
    where = run(sys.executable, "-c", code, env=environment, cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed)

    program = installed / "bin" / "convllava"
    answer = run(sys.executable, program, "ask", image, "Read the text.", env=environment, cwd=tmp_path)
    assert answer.stdout.strip()
    # torchao, where it is installed, logs while transformers imports it
    remarks = [line for line in answer.stderr.splitlines() if "torchao" not in line and "_pytree" not in line]
    assert remarks == []


def test_installed_plugin_loads(installed: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.metadata import entry_points;"
        "(plugin,) = entry_points(group='vllm.general_plugins', name='convllava');"
        "assert callable(plugin.load())"
    )
    run(sys.executable, "-c", code, env=elsewhere(installed), cwd=tmp_path)
