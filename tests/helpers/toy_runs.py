"""Whole runs of toy stages, in this process or in one of their own, and their results."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpbatch.batch.progress import Reporter
from dpbatch.batch.run import run
from dpbatch.location import Location
from dpbatch.settings import RestoreSettings, Settings
from dpbatch.types import RunOptions
from tests.helpers.toy_stages import CopyStages

REPOSITORY = Path(__file__).parents[2]
SETTINGS = Settings(restore=RestoreSettings(model="tiny"))
RESULTS = {"a.tif": b"a fo slexip", "day 1/b.tif": b"b fo slexip"}
"""Of write_shoot, by CopyStages."""


def write_pair(folder: Path, name: str, content: str = "") -> Path:
    """A pair whose left file holds `content`, for CopyStages."""
    folder.mkdir(parents=True, exist_ok=True)
    left = folder / f"{name}_L.tif"
    left.write_text(content or f"pixels of {name}")
    (folder / f"{name}_R.tif").write_text("right")
    return left


def write_shoot(folder: Path) -> Path:
    """Two pairs, whose results are RESULTS; returns the folder."""
    write_pair(folder, "a")
    write_pair(folder / "day 1", "b")
    return folder


@dataclass
class Ran:
    """What a run reported: exit code, table, and by input stem the JSON line."""

    code: int
    text: str
    photos: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def codes(self) -> dict[str, str]:
        return {stem: said["code"] or said["status"] for stem, said in self.photos.items()}


def go(
    shoot: Location,
    out: Location,
    stages: CopyStages | None = None,
    settings: Any = None,
    **options: Any,
) -> Ran:
    messages, log = io.StringIO(), io.StringIO()
    reporter = Reporter(messages, log)
    run_options = RunOptions((shoot,), out, **options)
    code = run(run_options, settings or SETTINGS, stages or CopyStages(), reporter)
    ran = Ran(code, messages.getvalue())
    for line in log.getvalue().splitlines():
        said = json.loads(line)
        if said["event"] == "end":
            ran.end = said
        else:
            stem = Path(said["input"].split(" + ")[0]).stem.removesuffix("_L")
            assert stem not in ran.photos
            ran.photos[stem] = {"code": said["event"], **said}
    counts = Counter(said.get("status", "would_run") for said in ran.photos.values())
    assert sum(counts.values()) == ran.end["inputs"]
    assert {name: ran.end[name] for name in counts} == counts
    return ran


def visible(out: Path) -> dict[str, bytes]:
    """Return every file outside the state folder, temporaries included."""
    files = (path for path in out.rglob("*") if path.is_file())
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in files
        if ".dpbatch" not in path.parts
    }


def start_toy_run(shoot: Location, out: Location, save_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.helpers.toy_run", str(shoot), str(out), str(save_s)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def wait_for(
    condition: Callable[[], object],
    process: subprocess.Popen[str] | None = None,
    timeout_s: float = 30,
) -> None:
    """Wait until the condition holds; fail after timeout_s, or when the process has ended."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process and process.communicate()
        time.sleep(0.02)


def journal_text(out: Path) -> str:
    path = out / ".dpbatch" / "journal.jsonl"
    return path.read_text() if path.exists() else ""
