"""The pages under docs/ agree with the code."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def _module_map() -> ModuleType:
    """Return docs/module_map.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("module_map", ROOT / "docs" / "module_map.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_map_names_every_module_and_no_other() -> None:
    module_map = _module_map()
    on_page = module_map.listed(module_map.PAGE.read_text(encoding="utf-8"))
    assert sorted(on_page) == module_map.modules(), "run: python docs/module_map.py"


def test_the_map_has_one_line_for_each_module_of_a_made_up_tree(tmp_path: Path) -> None:
    module_map = _module_map()
    module_map.ROOT = tmp_path
    for name in ("ldp/__init__.py", "ldp/a.py", "ldp/blur/b.py", "dpbatch/cli/c.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Estimate\nblur.\n\nMore."""\n', encoding="utf-8")
    text = module_map.render()
    assert text.count("Estimate blur.") == 3
    page = f"{module_map.START}\n{text}\n{module_map.END}"
    expected = [Path("dpbatch/cli/c.py"), Path("ldp/a.py"), Path("ldp/blur/b.py")]
    assert module_map.listed(page) == expected == module_map.modules()
