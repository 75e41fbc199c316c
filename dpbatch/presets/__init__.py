"""Presets: TOML files with some of the settings, by the name of a shipped one or by path."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path

import msgspec

from dpbatch.errors import SettingsError
from dpbatch.settings import Settings


def shipped() -> tuple[str, ...]:
    """Return the names of the presets that come with dpbatch, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(Path(file.name).stem for file in files if file.name.endswith(".toml")))


def text(name: str) -> str:
    """Return the TOML of a preset.

    name: of a shipped preset, or the path of a file that ends in .toml.
    Raises SettingsError if there is none or it cannot be read.
    """
    try:
        if name.lower().endswith(".toml"):
            return Path(name).expanduser().read_text(encoding="utf-8")
        if name in shipped():
            return resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"preset {name}: cannot be read: {error}") from error
    raise SettingsError(
        f"preset {name!r} does not exist; shipped are {', '.join(shipped())}, "
        "and the path of a .toml file works too"
    )


def load(name: str) -> Settings:
    """Return the defaults overridden by a preset. Raises SettingsError."""
    try:
        tables = tomllib.loads(text(name))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"preset {name}: not valid TOML: {error}") from error
    return merge(Settings(), tables, where=f"preset {name}")


def merge(base: Settings, tables: Mapping[str, object], where: str) -> Settings:
    """Return `base` overridden by tables such as {"output": {"format": "png"}}.

    where: the start of every error message. Raises SettingsError for an unknown table or key
    (listing the known ones), a wrong type or a value out of range.
    """
    groups: dict[str, dict[str, object]] = {
        item.name: msgspec.to_builtins(getattr(base, item.name)) for item in fields(base)
    }
    for name, table in tables.items():
        if name not in groups:
            known = ", ".join(f"[{group}]" for group in groups)
            raise SettingsError(f"{where}: unknown table [{name}]; known are {known}")
        if not isinstance(table, Mapping):
            raise SettingsError(f"{where}: {name} must be a table, [{name}]")
        for key in table:
            if key not in groups[name]:
                known = ", ".join(groups[name])
                raise SettingsError(f"{where}: unknown key {key!r} in [{name}]; known are {known}")
        groups[name] |= table
    try:
        return msgspec.convert(groups, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {_wrong_type(error, groups)}") from error
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _wrong_type(error: msgspec.ValidationError, groups: dict[str, dict[str, object]]) -> str:
    """Return msgspec's message in the words of a preset: "bit_depth: expected int, found '16'"."""
    match = re.fullmatch(r"Expected `(.+)`, got `(.+)` - at `\$\.(\w+)\.(\w+).*`", str(error))
    if match is None:
        return str(error)
    expected, found, group, key = match.groups()
    expected = "a list of names" if expected == "array" else expected
    value = groups[group][key]
    quoted = expected == "str" and isinstance(value, int | float) and not isinstance(value, bool)
    hint = f'; write it in quotes, {key} = "{value}"' if quoted else ""
    return f"{key}: expected {expected}, found {value!r} ({found}){hint}"
