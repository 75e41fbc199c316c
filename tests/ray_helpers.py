"""Runs of toy stages on Ray, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
# Ray's workers unpickle stages of `tests`, wherever pytest was started.
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY)}


def start_ray_run(
    shoot: Path, out: Path, address: str, actors: int, save_s: float
) -> subprocess.Popen[str]:
    """See `ray_run`; its process leads a group of its own."""
    arguments = [str(shoot), str(out), address, str(actors), str(save_s)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ray_run", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def records(out: Path) -> list[dict[str, Any]]:
    path = out / ".dpbatch" / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for record in map(parsed, lines) if "target" in record]


def parsed(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}  # torn by the kill


def count_done(out: Path) -> int:
    return sum(record["status"] == "done" for record in records(out))


def write_pair(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_L.tif").write_text(f"pixels of {name}")
    (folder / f"{name}_R.tif").write_text("right")


def wait_for(
    condition: Callable[[], object],
    driver: subprocess.Popen[str] | None = None,
    timeout_s: float = 120,
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        assert driver is None or driver.poll() is None, driver and driver.communicate()
        time.sleep(0.02)
