"""Which package may import which, that no modules import each other, and how long a file may be.

The source is parsed, not imported: imports inside functions and for type checkers count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dpbatch", "ldp", "training")
MOST_LINES = 350

FLOOR = {
    "types", "errors", "location", "focus_settings", "settings", "fingerprints", "networks",
    "hints", "terminal",
}  # fmt: skip
PHOTO = FLOOR | {"raw", "output", "ldp", "version"}
STEPS = PHOTO | {"photo", "ordinary", "ahead"}
MAY_IMPORT = {
    "version": set[str](),
    "errors": set[str](),
    "location": {"errors"},
    "terminal": set[str](),
    "types": {"errors", "location"},
    "focus_settings": {"errors"},
    "settings": {"errors", "focus_settings", "ldp"},
    "fingerprints": {"settings"},
    "networks": {"settings", "fingerprints", "errors", "ldp"},
    "hints": {"ldp"},
    "presets": {"settings", "errors"},
    "raw": FLOOR | {"ldp"},
    "output": FLOOR | {"ldp"},
    "editing": PHOTO,
    "rescue": PHOTO | {"editing"},
    "ahead": PHOTO,
    "photo": PHOTO | {"ahead", "editing", "rescue"},
    "ordinary": PHOTO | {"ahead", "photo"},
    "storage": STEPS,
    "engine": STEPS,
    "batch": STEPS | {"storage", "engine"},
    "tools": STEPS | {"storage", "engine", "batch", "presets", "training"},
    "cli": STEPS | {"storage", "engine", "batch", "presets", "tools", "training"},
    "main": {"cli"},
    "ldp": set[str](),
    "training": {"ldp"},
}
"""For each part of the project, the others that it may import. The parts of dpbatch are its
modules and packages; "version" is dpbatch/__init__.py and "main" dpbatch/__main__.py."""

ONLY_IN: dict[str, str | tuple[str, ...]] = {
    "ray": "dpbatch/engine/ray/",
    "rawpy": ("dpbatch/raw/reader.py", "dpbatch/raw/ordinary.py"),
    "exiv2": tuple(
        f"dpbatch/output/{name}.py" for name in ("af_areas", "metadata", "carrier", "sidecar")
    ),
    "fsspec": "dpbatch/storage/store.py",
}
"""Libraries that one place keeps from the rest of the project."""

KNOWN: dict[str, str] = {}
"""Violations that are still there, each with the part whose change will remove it. Entries are
only ever removed."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """What the source of a module imports anywhere in it, as dotted names, relative ones made
    absolute: of `from a import b`, a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = node.level - 1 if is_package else node.level
                parts = module.split(".")
                folder = parts[: len(parts) - above]
                base = ".".join([*folder, *([base] if base else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}"


@cache
def all_imports(module: str) -> frozenset[str]:
    """What a module of the project imports, dotted."""
    path = modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(imported(tree, module, path.name == "__init__.py"))


@cache
def edges(module: str) -> frozenset[str]:
    """The modules of the project that a module imports."""
    found = set()
    for name in all_imports(module):
        if name in modules():
            found.add(name)
        elif name.rpartition(".")[0] in modules():
            found.add(name.rpartition(".")[0])
        elif name.partition(".")[0] in PACKAGES:
            raise AssertionError(f"{module} imports {name}, which is not there")
    return frozenset(found)


def part(module: str) -> str:
    """The part of the project that a module belongs to: a key of MAY_IMPORT."""
    package, _, rest = module.partition(".")
    if package != "dpbatch":
        return package
    return {"": "version", "__main__": "main"}.get(rest, rest.partition(".")[0])


def circles(graph: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """Groups of modules of which each is reached from each (Tarjan's algorithm), sorted."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> Iterator[tuple[str, ...]]:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                yield from visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in graph[name]:
                yield tuple(sorted(group))

    for name in graph:
        if name not in number:
            yield from visit(name)


def violations() -> Iterator[str]:
    """Everything that breaks a rule of this file, one line each."""
    for module in modules():
        for target in sorted(edges(module)):
            ours, theirs = part(module), part(target)
            if ours != theirs and theirs not in MAY_IMPORT[ours]:
                yield f"{module} imports {target}"
        top_levels = {name.partition(".")[0] for name in all_imports(module)}
        path = modules()[module].relative_to(ROOT).as_posix()
        for library in sorted(ONLY_IN.keys() & top_levels):
            if not path.startswith(ONLY_IN[library]):
                yield f"{module} imports {library}"
        lines = len(modules()[module].read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            yield f"{module} is longer than {MOST_LINES} lines"
    for circle in circles({module: sorted(edges(module)) for module in modules()}):
        yield f"circle: {', '.join(circle)}"


@pytest.fixture(scope="module")
def found() -> set[str]:
    return set(violations())


def test_imports_go_down_and_no_file_is_too_long(found: set[str]) -> None:
    new = sorted(found - KNOWN.keys())
    assert new == []


def test_what_is_known_is_still_there(found: set[str]) -> None:
    """A violation that is gone must not stay on the list, where it would hide the next one."""
    assert sorted(KNOWN.keys() - found) == []


def test_every_part_has_its_rule() -> None:
    assert {part(module) for module in modules()} == MAY_IMPORT.keys()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b, c", {"a.b", "a.c"}),
        ("def f():\n    from a import b", {"a.b"}),
        ("if TYPE_CHECKING:\n    import a", {"a"}),
        ("from . import x", {"p.q.x"}),
        ("from ..r import x", {"p.r.x"}),
    ],
)
def test_all_kinds_of_imports_are_seen(source: str, expected: set[str]) -> None:
    assert set(imported(ast.parse(source), "p.q.m", is_package=False)) == expected


def test_circles_are_found() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": [], "e": ["e"]}
    assert sorted(circles(graph)) == [("b", "c"), ("e",)]
