"""Presets: TOML files that set some of the settings, shipped ones by name, one's own by path."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from dpbatch.errors import SettingsError
from dpbatch.settings import Settings


def shipped() -> tuple[str, ...]:
    """The names of the presets that come with the package, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(Path(file.name).stem for file in files if file.name.endswith(".toml")))


def text(name: str) -> str:
    """A preset's TOML.

    name: a shipped preset's name, or the path of a file that ends in .toml.
    Raises SettingsError where there is none, or it cannot be read.
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
    """The defaults with a preset's values over them. Raises SettingsError."""
    try:
        tables = tomllib.loads(text(name))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"preset {name}: not valid TOML: {error}") from error
    return merge(Settings(), tables, where=f"preset {name}")


def merge(base: Settings, tables: dict[str, Any], where: str) -> Settings:
    """`base` with the values of `tables` ({"output": {"format": "png"}}) over it.

    where: said at the start of every message. Raises SettingsError on an unknown group or key
    (listing the known ones), a wrong type or a value out of range.
    """
    groups = [item.name for item in fields(base)]
    merged = base
    for group_name, values in tables.items():
        if group_name not in groups:
            raise SettingsError(
                f"{where}: unknown table [{group_name}]; known are "
                + ", ".join(f"[{group}]" for group in groups)
            )
        if not isinstance(values, dict):
            raise SettingsError(f"{where}: {group_name} must be a table, [{group_name}]")
        group = getattr(base, group_name)
        known = [item.name for item in fields(group)]
        typed = {}
        for key, value in values.items():
            if key not in known:
                raise SettingsError(
                    f"{where}: unknown key {key!r} in [{group_name}]; known are {', '.join(known)}"
                )
            typed[key] = _typed(value, getattr(group, key), f"{where}: {key}")
        try:
            merged = replace(merged, **{group_name: replace(group, **typed)})
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error
    return merged


def _typed(value: object, default: object, where: str) -> object:
    """`value` as the default's type: a list becomes a tuple, nothing else is converted."""
    if isinstance(default, tuple):
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise SettingsError(f"{where}: expected a list of names, found {value!r}")
    if type(value) is not type(default):
        raise SettingsError(
            f"{where}: expected {type(default).__name__}, found {value!r} ({type(value).__name__})"
        )
    return value
