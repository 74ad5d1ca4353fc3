"""A recipe from YAML and `--set`, checked key by key; and back to plain data for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from dust3r_ros.mapping.config import ConfigError, with_settings
from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.recipe import Recipe

FREE = "scenes"

Config = TypeVar("Config")


def read_recipe(file: Path, changes: list[str] | None = None) -> Recipe:
    """The recipe of a YAML file with `key=value` changes on top. Raises TrainingError that names the key, its value and the remedy."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"recipe {file} cannot be read: {' '.join(str(error).split())}; give a YAML file") from error
    for change in changes or []:
        name, equals, text = change.partition("=")
        if not equals:
            raise TrainingError(f"--set {change} is no key=value: for instance --set data.batch=8")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise TrainingError(f"--set {change}: its value is no YAML; quote it") from error
        content = _with(content, name.split("."), value, change)
    return recipe_of(content, f"recipe {file}")


def recipe_of(content: Any, source: str) -> Recipe:
    """The recipe of plain data, nested as in the file; `source` is named in errors."""
    if not isinstance(content, Mapping):
        raise TrainingError(f"{source} holds a {type(content).__name__}: give 'section: {{key: value}}' as in config/train/")
    free = content.get(FREE) or {}
    if not isinstance(free, Mapping):
        raise TrainingError(f"{source}: '{FREE}' is {free!r}: give a mapping of settings of the generated scenes")
    try:
        recipe: Recipe = with_settings(Recipe(), _flat({key: value for key, value in content.items() if key != FREE}))
    except ConfigError as error:
        raise TrainingError(f"{source}: {error}") from None
    return replace(recipe, scenes=dict(free))


def data_of(recipe: Recipe) -> dict[str, Any]:
    """Plain data that `recipe_of` and JSON take."""
    return asdict(recipe)


def filled(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """A (nested) dataclass of plain values. Raises TrainingError for a key it does not have or a value of another type."""
    default = kind()
    known = {item.name: getattr(default, item.name) for item in fields(default)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}.{key}"
        if key not in known:
            raise TrainingError(f"unknown setting '{name}': known are {', '.join(known)}")
        new[key] = _fitting(known[key], value, name)
    return kind(**new)


def _fitting(default: Any, value: Any, name: str) -> Any:
    if is_dataclass(default) and not isinstance(default, type):
        if not isinstance(value, Mapping):
            raise TrainingError(f"'{name}' is {value!r}: give a mapping of settings")
        return filled(type(default), value, name)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is None or isinstance(default, Path):
        if value is not None and not isinstance(value, str):
            raise TrainingError(f"'{name}' is {value!r}: give a path")
        return None if value is None else Path(value)
    wanted = Mapping if isinstance(default, Mapping) else type(default)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise TrainingError(f"'{name}' is {value!r}, a {type(value).__name__}: give a {type(default).__name__}, e.g. {default!r}")
    return value


def _with(content: Any, path: list[str], value: Any, change: str) -> Any:
    if not path:
        return value
    if not isinstance(content, Mapping):
        raise TrainingError(f"--set {change}: '{path[0]}' cannot stand below {content!r}; name a setting of a section")
    return {**content, path[0]: _with(content.get(path[0], {}), path[1:], value, change)}


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {prefix[:-1]: tuple(content) if isinstance(content, list) else content}
    return {name: value for key, inner in content.items() for name, value in _flat(inner, f"{prefix}{key}.").items()}
