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

from ..support import did_you_mean, write_text
from .recipe import Recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe file, the files that it extends and follows, and ``key=value`` overrides.

    Args:
        path: The YAML file.
        overrides: Changed values, such as ``learning_rate=1e-4`` or ``image.resolution=512``.

    Raises:
        ValueError: The file is missing, a key is unknown or a value is invalid.
    """
    values = read_recipe_file(Path(path))
    for override in overrides:
        apply_override(values, override)
    _follow(values, seen=(Path(path).resolve(),))
    return validated_recipe(values, path)


def load_chain(path: str | Path, overrides: Sequence[str] = ()) -> list[Recipe]:
    """Load a recipe and those that it follows (``after``), the first one first; overrides apply to the last one.

    Raises:
        ValueError: See :func:`load_recipe`.
    """
    chain = [load_recipe(path, overrides)]
    while (previous := read_recipe_file(Path(path)).get("after")) is not None:
        path = previous
        chain.insert(0, load_recipe(path))
    return chain


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with all its values, defaults included."""
    write_text(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))


def validated_recipe(values: dict[str, Any], path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of these values with ``key=value`` overrides; ``path`` names it in messages.

    Raises:
        ValueError: A key is unknown or missing, or a value is invalid.
    """
    for override in overrides:
        apply_override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"recipe {path}: " + "; ".join(map(explain, error.errors()))) from error


def explain(error: Any) -> str:
    """Return one of pydantic's errors as a sentence: the key, what is wrong, the value."""
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


def read_recipe_file(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and those that it extends; ``after`` becomes a path relative to the working directory.

    Raises:
        ValueError: A file is missing, is not a YAML mapping or extends itself.
    """
    if path.resolve() in seen:
        raise ValueError(f"recipe {path} extends itself, by way of {', '.join(map(str, seen))}")
    content = parse_file(path)
    if content.get("after") is not None:
        content["after"] = str(path.parent / _file_name(content["after"], "after", path))
    bases = content.pop("extends", None) or []
    values: dict[str, Any] = {}
    for base in (_file_name(one, "extends", path) for one in (bases if isinstance(bases, list) else [bases])):
        values = merge(values, read_recipe_file(path.parent / base, (*seen, path.resolve())))
    return merge(values, content)


def _file_name(value: Any, key: str, path: Path) -> str:
    if not isinstance(value, str):
        raise ValueError(f"recipe {path}: {key} must name a recipe file, got {value!r}")
    return value


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
    previous_values = read_recipe_file(Path(after))
    _follow(previous_values, seen=(*seen, Path(after).resolve()))
    previous = validated_recipe(previous_values, after)
    values.pop("init_from_parts", None)  # inherited from the first recipe of the chain
    values.setdefault("init_from", str(previous.output_dir))
    if previous.architecture is not None:
        values["model"] = previous.architecture.model_dump()


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return the values of ``base`` with those of ``top`` in their place; mappings are merged key by key."""
    merged = dict(base)
    for key, value in top.items():
        both_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_mappings else value
    return merged


def apply_override(values: dict[str, Any], override: str) -> None:
    """Change one value in place, by ``key=value`` or ``key.key=value``.

    Raises:
        ValueError: The text is neither, or passes through something that is not a mapping.
    """
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
