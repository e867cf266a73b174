"""Frozen dataclasses from and to JSON values, with errors that name the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from sam3i_edge.errors import TrainingError

T = TypeVar("T")


def to_plain(value: object) -> object:
    """Dataclasses and mappings to dicts, tuples to lists; the rest as it is."""
    if is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def from_plain(kind: type[T], value: object, where: str = "") -> T:
    """The inverse of `to_plain`.

    Args:
        kind: the dataclass. Its fields may be bool, int, float, str, Literal, tuple[X, ...], Mapping and
            dataclasses of the same.
        value: what `json.load` gave.
        where: name of the value, for messages.

    Raises:
        TrainingError: a field is unknown, missing, of another type, or refused by the dataclass.
    """
    name = where or "the config"
    if not isinstance(value, dict):
        raise TrainingError(f"{name} must be a JSON object, got {_shown(value)}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(cast(Any, kind))}
    for key in value:
        if key not in known:
            raise TrainingError(f"unknown field {_join(where, key)!r}; {name} takes {', '.join(known)}")
    for key, spec in known.items():
        if key not in value and spec.default is MISSING and spec.default_factory is MISSING:
            raise TrainingError(f"field {_join(where, key)!r} is missing")
    given = {key: _convert(hints[key], item, _join(where, key)) for key, item in value.items()}
    try:
        return kind(**given)
    except ValueError as error:
        raise TrainingError(f"{where}: {error}" if where else str(error)) from error


def read_json(path: Path) -> object:
    """The value in a JSON file.

    Raises:
        TrainingError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise TrainingError(f"{path} is not JSON: {error}") from error


def _convert(kind: Any, value: object, where: str) -> object:
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return from_plain(cast(type, kind), value, where)
    if origin is Literal:
        if value not in args or isinstance(value, bool):
            raise TrainingError(f"{where} must be one of {', '.join(map(repr, args))}, got {_shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise TrainingError(f"{where} must be a list, got {_shown(value)}")
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise TrainingError(f"{where} must be a JSON object, got {_shown(value)}")
        return {
            _convert(args[0], k, f"{where} key"): _convert(args[1], v, _join(where, k))
            for k, v in value.items()
        }
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TrainingError(f"{where} must be {kind.__name__}, got {_shown(value)}")
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
