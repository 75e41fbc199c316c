"""A run: every input ends once, a second run goes on, nothing of anybody else's is overwritten."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from dpbatch.batch.status import read_status
from dpbatch.batch.status_text import to_text
from dpbatch.errors import AbortError, SettingsError
from dpbatch.settings import OutputSettings, Settings
from dpbatch.types import Processes
from tests.helpers.toy_runs import RESULTS, go, journal_text, visible, write_pair, write_shoot
from tests.helpers.toy_stages import CopyStages


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    return write_shoot(tmp_path / "shoot")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_every_photo_becomes_a_file_in_the_same_place(shoot: Path, out: Path) -> None:
    ran = go(shoot, out)
    assert ran.code == 0
    assert ran.codes == {"a": "done", "b": "done"}
    assert visible(out) == RESULTS


@pytest.mark.usefixtures("inline")
def test_a_second_run_does_nothing_again(shoot: Path, out: Path) -> None:
    go(shoot, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")}
    again = go(shoot, out)
    assert (again.code, again.codes) == (0, {"a": "already-done", "b": "already-done"})
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")} == before


@pytest.mark.usefixtures("inline")
def test_moved_and_touched_photos_are_not_done_again(shoot: Path, out: Path) -> None:
    go(shoot, out)
    moved = shoot.rename(shoot.with_name("moved"))
    for path in moved.rglob("*.tif"):
        os.utime(path)
    assert go(moved, out).codes == {"a": "already-done", "b": "already-done"}


@pytest.mark.usefixtures("inline")
def test_what_is_new_changed_or_lost_is_done_and_only_that(shoot: Path, out: Path) -> None:
    write_pair(shoot, "lost")
    go(shoot, out)
    write_pair(shoot, "new")
    write_pair(shoot, "a", "pixels of A")  # as many bytes as before
    (out / "lost.tif").unlink()
    assert go(shoot, out).codes == {
        "a": "done",
        "b": "already-done",
        "lost": "done",
        "new": "done",
    }
    assert visible(out)["a.tif"] == b"A fo slexip"


@pytest.mark.usefixtures("inline")
def test_other_settings_replace_our_own_results_but_not_edited_ones(shoot: Path, out: Path) -> None:
    go(shoot, out)
    (out / "a.tif").write_bytes(b"retouched by hand")
    other = CopyStages(fingerprint="second")
    ran = go(shoot, out, other)
    assert (ran.code, ran.codes) == (0, {"a": "target-changed", "b": "done"})
    assert visible(out)["a.tif"] == b"retouched by hand"
    assert go(shoot, out, other, overwrite=True).codes == {"a": "done", "b": "done"}
    assert visible(out) == RESULTS


@pytest.mark.usefixtures("inline")
def test_a_retouched_result_of_the_same_settings_counts_as_done(shoot: Path, out: Path) -> None:
    go(shoot, out)
    (out / "a.tif").write_bytes(b"retouched by hand")
    assert go(shoot, out).codes == {"a": "already-done", "b": "already-done"}


@pytest.mark.usefixtures("inline")
def test_foreign_files_are_kept_without_overwrite(shoot: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.tif").write_bytes(b"somebody else's")
    ran = go(shoot, out)
    assert (ran.code, ran.codes) == (0, {"a": "target-exists", "b": "done"})
    assert visible(out)["a.tif"] == b"somebody else's"
    assert "--overwrite" in ran.text
    assert go(shoot, out, overwrite=True).codes == {"a": "done", "b": "done"}
    assert visible(out) == RESULTS


@pytest.mark.usefixtures("inline")
def test_another_shoots_photo_of_the_same_name_is_no_new_version(
    shoot: Path, out: Path, tmp_path: Path
) -> None:
    go(shoot, out)
    write_pair(tmp_path / "other", "a", "other pixels")
    ran = go(tmp_path / "other", out)
    assert ran.codes == {"a": "target-exists"}
    assert str(shoot) in ran.text
    assert visible(out) == RESULTS


@pytest.mark.usefixtures("inline")
def test_a_layer_that_lies_there_counts_as_the_result_does(shoot: Path, out: Path) -> None:
    stages = CopyStages(suffixes=(".tif", ".blur.tif"))
    out.mkdir()
    (out / "a.blur.tif").write_bytes(b"foreign")
    assert go(shoot, out, stages).codes == {"a": "target-exists", "b": "done"}
    assert (out / "day 1" / "b.blur.tif").exists()
    (out / "day 1" / "b.blur.tif").unlink()
    assert go(shoot, out, stages).codes["b"] == "done"


def test_failures_are_reported_and_tried_again(shoot: Path, out: Path) -> None:
    broken = write_pair(shoot, "broken", "load:damaged")
    write_pair(shoot, "crash", "load:exit")
    write_pair(shoot, "ordinary", "load:ordinary")
    write_pair(shoot, "unwritable", "save:damaged")
    first = go(shoot, out)
    assert first.code == 1
    assert first.codes == {
        "a": "done",
        "b": "done",
        "broken": "damaged",
        "crash": "worker-crash",
        "ordinary": "not-dual-pixel",
        "unwritable": "damaged",
    }
    table = first.text[first.text.index("\ninputs ") :]
    for expected in ("half of it is missing [load]", "1 raw frame", "died: exit code 3", "[save]"):
        assert expected in table
    assert visible(out) == RESULTS

    write_pair(shoot, "new")
    broken.write_text("repaired")
    only_failed = go(shoot, out, retry_failed=True)
    assert only_failed.codes == {
        "a": "already-done",
        "b": "already-done",
        "broken": "done",
        "crash": "worker-crash",
        "new": "not-failed",
        "ordinary": "not-failed",
        "unwritable": "damaged",
    }
    third = go(shoot, out)
    assert (third.codes["new"], third.codes["crash"]) == ("done", "worker-crash")
    assert third.codes["broken"] == "already-done"


def test_poison_fails_after_three_tries_and_every_other_photo_is_done(
    shoot: Path, out: Path
) -> None:
    for number in range(18):
        write_pair(shoot, f"{number:02}")
    poison = {"03x": "load:abort", "11x": "restore:exit"}
    for name, trouble in poison.items():
        write_pair(shoot, name, trouble)
    ran = go(shoot, out, processes=Processes(2))
    assert ran.code == 1
    assert Counter(ran.codes.values()) == {"done": 20, "worker-crash": 2}
    assert {name: ran.photos[name]["stage"] for name in poison} == {
        "03x": "load",
        "11x": "restore",
    }
    lines = [json.loads(line) for line in journal_text(out).splitlines()]
    counts = Counter((line["target"], line["status"]) for line in lines if "target" in line)
    for name in poison:
        assert (counts[f"{name}.tif", "started"], counts[f"{name}.tif", "failed"]) == (3, 1)
        assert "tried 3 times, the last time alone" in ran.photos[name]["message"]
    assert sum(count for (_, status), count in counts.items() if status == "done") == 20
    assert ran.text.count("it will run again, alone") == 4


def test_a_stop_after_some_failures_leaves_the_rest_for_the_next_run(
    shoot: Path, out: Path
) -> None:
    for number in range(8):
        write_pair(shoot, f"{number}", "load:damaged" if number in (1, 2) else "")
    ran = go(shoot, out, max_errors=2)
    assert ran.code == 3
    assert ran.end["failed"] == 2
    assert ran.codes["b"] == "not-reached"
    assert "stopped: 2 photos failed" in ran.text
    not_reached = Counter(ran.codes.values())["not-reached"]
    assert f"skipped {0:>10}\n" in ran.text
    assert f"not reached {not_reached:>6}\n" in ran.text
    assert f"not reached  {not_reached:>6}" in to_text(read_status(out))
    rest = go(shoot, out)
    assert (rest.code, rest.end["failed"]) == (1, 2)
    assert set(visible(out)) == {*RESULTS, *(f"{n}.tif" for n in (0, 3, 4, 5, 6, 7))}


def test_the_last_photo_failing_is_a_failure_and_no_stop(shoot: Path, out: Path) -> None:
    write_pair(shoot / "day 2", "z", "save:damaged")
    assert go(shoot, out, max_errors=1).code == 1


@pytest.mark.usefixtures("inline")
def test_a_dry_run_reports_all_and_touches_nothing(shoot: Path, out: Path) -> None:
    write_pair(shoot, "half").unlink()
    ran = go(shoot, out, dry_run=True)
    assert (ran.code, ran.end["would_run"]) == (0, 2)
    assert ran.photos["half_R"]["code"] == "lone-half"
    assert f"-> {out / 'day 1' / 'b.tif'}" in ran.text
    assert not out.exists()
    go(shoot, out)
    assert go(shoot, out, dry_run=True).codes["a"] == "already-done"


def test_collisions_and_an_empty_folder_are_found_before_any_work(
    shoot: Path, out: Path, tmp_path: Path
) -> None:
    write_pair(shoot / "day 2", "b")
    flat = Settings(output=type(Settings().output)(template="{stem}"))
    for dry_run in (True, False):
        with pytest.raises(SettingsError, match="taken twice"):
            go(shoot, out, settings=flat, dry_run=dry_run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AbortError, match="no raw files"):
        go(tmp_path / "empty", out)
    assert not out.exists()


def test_a_name_that_is_too_long_fails_its_photo_and_a_template_for_all_is_refused(
    shoot: Path, out: Path
) -> None:
    long = "n" * 248
    write_pair(shoot, long)
    layers = CopyStages(suffixes=(".tif", ".blur.tif"))
    for dry_run in (True, False):
        ran = go(shoot, out, layers, dry_run=dry_run)
        assert (ran.code, ran.photos[long]["status"]) == (1, "failed")
        assert "is too long for the file system, 257 bytes: nnn" in ran.photos[long]["message"]
    assert set(ran.codes.values()) == {"done", "output"}
    settings = Settings(output=OutputSettings(template="{stem}" + "x" * 300))
    for dry_run in (True, False):
        with pytest.raises(SettingsError, match=r"too long for the file system.*--template"):
            go(shoot, out, settings=settings, dry_run=dry_run)


def test_an_unwritable_output_folder_is_found_before_any_work(shoot: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AbortError, match="cannot be written"):
        go(shoot, tmp_path / "file" / "out")


def test_ordinary_and_damaged_raw_files_are_distinguished(shoot: Path, out: Path) -> None:
    (shoot / "old.CRW").write_bytes(b"II\x1a\0\0\0HEAPCCDR" + bytes(50))
    (shoot / "empty.CR2").touch()
    dry = go(shoot, out, dry_run=True)
    assert (dry.codes["old"], dry.photos["empty"]["status"]) == ("not-dual-pixel", "failed")
    # The probe only guards against useless work; what a damaged file is, loading it decides.
    assert go(shoot, out).codes["old"] == "not-dual-pixel"


@pytest.mark.usefixtures("inline")
def test_warnings_are_reported(shoot: Path, out: Path) -> None:
    ran = go(shoot, out, CopyStages(warnings=("lens name lost",)))
    assert ran.text.count("lens name lost") == 2
    assert ran.photos["a"]["warnings"] == ["lens name lost"]


@pytest.mark.usefixtures("inline")
def test_a_file_that_was_finished_just_before_a_kill_is_ours(shoot: Path, out: Path) -> None:
    go(shoot, out)
    path = out / ".dpbatch" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"started"' in line))
    assert go(shoot, out).codes == {"a": "done", "b": "done"}
