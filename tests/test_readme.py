"""What the README says can be typed in as it stands, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OUTSIDE_DOCS = sorted(path.name for path in ROOT.glob("*.md"))


def _anchors(page: str) -> set[str]:
    """Return the anchors that a page's headings have on the web."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_two_commands_stand_where_ci_takes_them_from() -> None:
    for name, last in (("demo", "dpbatch demo --out demo"), ("tests", "pytest")):
        (command,) = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)\n```", README)
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints")
        assert command.endswith(f".venv/bin/{last}")


def test_the_readme_has_at_most_8_kb() -> None:
    assert len(README.encode()) <= 8 * 1024


@pytest.mark.parametrize("name", OUTSIDE_DOCS)
def test_links_to_files_lead_to_files_and_headings(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        path = ROOT / (file or name)
        assert path.exists(), f"{name} links to {target}"
        assert not anchor or anchor in _anchors(path.read_text(encoding="utf-8")), target
