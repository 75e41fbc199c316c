"""The pages under docs/ agree with the code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import tifffile

import ldp

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


def test_the_map_has_one_line_for_each_module_of_a_made_up_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_map = _module_map()
    monkeypatch.setattr(module_map, "ROOT", tmp_path)
    for name in ("ldp/__init__.py", "ldp/a.py", "ldp/blur/b.py", "dpbatch/cli/c.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Estimate\nblur.\n\nMore."""\n', encoding="utf-8")
    text = module_map.render()
    assert text.count("Estimate blur.") == 3
    page = f"{module_map.START}\n{text}\n{module_map.END}"
    expected = [Path("dpbatch/cli/c.py"), Path("ldp/a.py"), Path("ldp/blur/b.py")]
    assert module_map.listed(page) == expected == module_map.modules()


def test_the_library_example_runs_and_loads_neither_rawpy_nor_the_command_line(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).random((64, 96, 3)).astype(np.float32)
    view = (cv2.GaussianBlur(noise, (0, 0), 2.0) * 65535).astype(np.uint16)
    for side in "LR":
        tifffile.imwrite(tmp_path / f"IMG_1_{side}.tif", view)
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code += "\nimport sys\nprint(sorted({'rawpy', 'ray', 'click', 'exiv2'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    sharp = tifffile.imread(tmp_path / "IMG_1.tif")
    assert sharp.shape == (64, 96, 3)
    assert sharp.dtype == np.uint16


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "dpbatch|ldp|training|configs|tests|docs"
    files = re.findall(rf"\b(?<![./])((?:{folders})/[\w/.-]*\.(?:py|toml|yaml|md))\b", text)
    modules = re.findall(r"python -m ((?:dpbatch|ldp|training)\.[\w.]+)", text)
    named = [*files, *(f"{module.replace('.', '/')}.py" for module in modules)]
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


def test_the_library_page_has_every_public_name() -> None:
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: ldp\.(\w+)$", page, re.MULTILINE)) == sorted(ldp.__all__)


@pytest.mark.slow
def test_the_pages_build_without_a_broken_link_and_load_nothing_from_other_hosts(
    tmp_path: Path,
) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert tmp_path / "architecture" / "index.html" in pages
    loaded = r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"\']?(?:https?:)?//[^>]*>"
    for page in pages:
        assert re.findall(loaded, page.read_text(encoding="utf-8")) == [], page
