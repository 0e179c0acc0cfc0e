"""Frozen dataclasses from the plain values of a config or of a JSON file, and back."""

import dataclasses
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from common.errors import UserFacingError

Config = TypeVar("Config")


def config_of(cls: type[Config], values: dict[str, Any], *, name: str = "config") -> Config:
    """Makes a frozen dataclass of plain values; lists become tuples, dicts nested dataclasses.

    Raises:
        UserFacingError: a key is missing or unknown.
    """
    fields = typing.get_type_hints(cls)
    for key in sorted(fields.keys() ^ values.keys()):
        raise UserFacingError(f"{name}.{key}: {'missing' if key in fields else 'unknown'}")

    def convert(key: str, value: Any) -> Any:
        if dataclasses.is_dataclass(fields[key]) and not isinstance(value, fields[key]):
            return config_of(fields[key], value, name=f"{name}.{key}")
        return tuple(value) if isinstance(value, list) else value

    return cls(**{key: convert(key, value) for key, value in values.items()})


def differences(
    theirs: dict[str, Any], mine: dict[str, Any], *, ignore: Collection[str] = (), prefix: str = ""
) -> list[str]:
    """Returns what differs between two nested dicts of plain values, the keys `ignore` left out."""
    found = []
    for key in sorted(theirs.keys() | mine.keys()):
        there, here = theirs.get(key), mine.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            found += differences(there, here, ignore=ignore, prefix=f"{prefix}{key}.")
        elif there != here and key not in ignore:
            found.append(f"{prefix}{key} is {there} there and {here} here")
    return found
