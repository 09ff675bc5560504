"""Recipe files: YAML that inherits from other recipes, follows them and takes overrides.

``extends: other.yaml`` (or a list, later files win) inherits: mappings are merged, everything else is replaced.
``after: other.yaml`` starts from the model that the other recipe leaves in its ``output_dir`` (or from ``init_from``,
which must then have the same architecture). Both paths are relative to the recipe that contains them.
"""

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..support import did_you_mean
from .recipe import Recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe file, the files that it extends and follows, and ``key=value`` overrides.

    Args:
        path: The YAML file.
        overrides: Changed values, such as ``learning_rate=1e-4`` or ``image.resolution=512``.

    Raises:
        ValueError: The file is missing, a key is unknown or a value is invalid.
    """
    values = _read(Path(path), seen=())
    for override in overrides:
        _apply(values, override)
    _follow(values, seen=(Path(path).resolve(),))
    return validated(values, path)


def load_chain(path: str | Path, overrides: Sequence[str] = ()) -> list[Recipe]:
    """Load a recipe and those that it follows (``after``), the first one first; overrides apply to the last one.

    Raises:
        ValueError: See :func:`load_recipe`.
    """
    chain = [load_recipe(path, overrides)]
    while (previous := _read(Path(path), seen=()).get("after")) is not None:
        path = previous
        chain.insert(0, load_recipe(path))
    return chain


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with all its values, defaults included."""
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def validated(values: dict[str, Any], path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of the content of a file.

    Args:
        values: The content, without keys that name other files.
        path: Name of the recipe in errors.
        overrides: ``key=value`` overrides.

    Raises:
        ValueError: A key is unknown or a value is invalid.
    """
    for override in overrides:
        _apply(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"recipe {path}: " + "; ".join(map(_explain, error.errors()))) from error


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {place!r}" + did_you_mean(error["loc"][-1], _known_keys(error["loc"]))
    if error["type"] == "missing":
        return f"key {place!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message} (got {error['input']!r})" if place else message


def _known_keys(location: Sequence[str | int]) -> list[str]:
    """Return the keys of the mapping that contains the value at ``location``."""
    model: type[BaseModel] = Recipe
    for key in location[:-1]:
        if key in model.model_fields:
            model = next(_models_in(model.model_fields[str(key)].annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models of an annotation such as ``list[DataEntry]`` or ``LoraOptions | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read a recipe and those that it extends; ``after`` becomes a path relative to the working directory."""
    if path.resolve() in seen:
        raise ValueError(f"recipe {path} extends itself, by way of {', '.join(map(str, seen))}")
    content = parse_file(path)
    if isinstance(content.get("after"), str):
        content["after"] = str(path.parent / content["after"])
    bases = content.pop("extends", None) or []
    values: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        values = _merge(values, _read(path.parent / base, (*seen, path.resolve())))
    return _merge(values, content)


def parse_file(path: Path) -> dict[str, Any]:
    """Return the keys and values of one recipe file, without those that it inherits.

    Raises:
        ValueError: The file is missing or is not a YAML mapping.
    """
    if not path.is_file():
        raise ValueError(f"no recipe {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"recipe {path} must be a mapping of keys to values")
    return values


def _follow(values: dict[str, Any], seen: tuple[Path, ...]) -> None:
    """Replace ``after`` by the checkpoint to start from and its architecture."""
    after = values.pop("after", None)
    if after is None:
        return
    if Path(after).resolve() in seen:
        raise ValueError(f"recipe {after} comes after itself, by way of {', '.join(map(str, seen))}")
    previous_values = _read(Path(after), seen=())
    _follow(previous_values, seen=(*seen, Path(after).resolve()))
    previous = validated(previous_values, after)
    values.pop("init_from_parts", None)  # inherited from the first recipe of the chain
    values.setdefault("init_from", str(previous.output_dir))
    if previous.architecture is not None:
        values["model"] = previous.architecture.model_dump()


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_mappings else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"override {override!r} is not key=value")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ValueError(f"override {override!r}: {parent!r} is not a mapping")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"override {override!r}: the value is not valid YAML ({reason}); quote text") from error
