"""Write the map of modules in docs/architecture.md from the first lines of their docstrings.

python docs/module_map.py
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("dpbatch", "ldp", "training")
START, END = "<!-- module map: start -->", "<!-- module map: end -->"


def modules() -> list[Path]:
    """Return every module of the packages, relative to the repository, without __init__.py."""
    found = (path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if path.name != "__init__.py")


def summary(path: Path) -> str:
    """Return the first paragraph of a module's docstring on one line."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n", 1)[0].split())


def listed(page: str) -> list[Path]:
    """Return the modules that the map on a page names, in its order."""
    block = page.split(START, 1)[1].split(END, 1)[0]
    found, folder = [], Path()
    for line in block.splitlines():
        if line.startswith("#"):
            folder = Path(line.strip("#` "))
        elif line.startswith("- `"):
            found.append(folder / line.split("`")[1])
    return found


def render() -> str:
    """Return the map: a heading for each folder, a line for each module."""
    lines: list[str] = []
    folder = None
    for path in sorted(modules(), key=lambda path: (path.parent.parts, path.name)):
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"### `{folder.as_posix()}/`", ""]
        lines.append(f"- `{path.name}`: {summary(path)}")
    return "\n".join([*lines, ""])


def main() -> None:
    """Replace the map on the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START, 1)
    PAGE.write_text(
        before + START + "\n" + render() + "\n" + END + rest.split(END, 1)[1], encoding="utf-8"
    )


if __name__ == "__main__":
    main()
