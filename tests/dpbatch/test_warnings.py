"""A photo's warnings name it once, wherever they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dpbatch.cli.main import main
from dpbatch.output.metadata import PhotoMetadata
from dpbatch.settings import Settings
from dpbatch.tools.split import SplitStages
from dpbatch.types import Job, Photo
from tests.helpers.scenes import write_test_dpraw

NAME = "IMG_7"
ABOUT = (
    "metadata not read: odd",
    "the preview does not fit the photo; the look is neutral",
    "nothing was restored: ",
    "the restoration is not kept: ",
)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw with metadata that cannot be read, and with the preview of another scene."""
    path = tmp_path / "shoot" / f"{NAME}.CR2"
    path.parent.mkdir()
    white = np.full((170, 256, 3), 255, np.uint8)
    write_test_dpraw(path, 96, 128, level_dn=20, preview_rgb=white)
    odd = PhotoMetadata(problem="metadata not read: odd")
    monkeypatch.setattr("dpbatch.output.metadata.read_metadata", lambda path: odd)
    return path


@pytest.mark.usefixtures("inline")
def test_terminal_log_journal_and_status_name_the_photo_of_a_warning_once(raw: Path) -> None:
    out = raw.parents[1] / "out"
    (out / ".dpbatch").mkdir(parents=True)
    (out / ".dpbatch" / "restorations").touch()  # where the folder of this name would be
    command = ["run", str(raw), "--out", str(out), "--model", "tiny", "--device", "cpu"]
    ran = CliRunner().invoke(main, [*command, "--json-log", "--focus-range", "50:40"])
    assert ran.exit_code == 0, ran.output
    (said,) = (json.loads(line) for line in ran.stdout.splitlines() if '"photo"' in line)
    warnings = said["warnings"]
    assert len(warnings) == len(ABOUT)
    for about in ABOUT:
        (warning,) = (warning for warning in warnings if warning.startswith(about))
        assert f"warning: {raw}: {warning}" in ran.stderr.splitlines()
    journal = (out / ".dpbatch" / "journal.jsonl").read_text().splitlines()
    (done,) = (record for record in map(json.loads, journal) if record.get("status") == "done")
    assert done["warnings"] == warnings
    status = CliRunner().invoke(main, ["status", str(out)]).stdout.partition("warnings:\n")[2]
    assert status.splitlines()[: len(warnings)] == [f"  {raw}: {text}" for text in warnings]


def test_a_warning_about_both_views_is_said_once(raw: Path) -> None:
    stages = SplitStages(Settings())
    outputs = tuple(raw.with_name(f"{NAME}{suffix}") for suffix in stages.suffixes)
    job = Job(outputs[0].name, raw.name, Photo("raw", (raw,), NAME), outputs)
    saved = stages.save(job, stages.restorer()(stages.load(job), lambda done, of: None))
    assert saved.warnings == ("metadata not read: odd",)
