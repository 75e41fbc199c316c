"""A result counts as done only while it is there and whole; what somebody has edited is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from dpbatch.batch import run as batch
from dpbatch.batch.journal import read_past
from dpbatch.batch.results import Results, State
from dpbatch.batch.status import read_status
from dpbatch.batch.status_text import to_text
from dpbatch.batch.verify import verify
from dpbatch.cli.main import main
from dpbatch.errors import AbortError
from dpbatch.output.whole import opens
from dpbatch.settings import OutputSettings, RawSettings, Settings
from dpbatch.storage import store
from dpbatch.storage.local import LocalFolder
from dpbatch.storage.stamps import stamp
from dpbatch.tools.split import SplitStages
from tests.helpers.inline_engine import InlineEngine
from tests.helpers.s3_server import remote
from tests.helpers.scenes import write_test_dpraw
from tests.helpers.toy_runs import Ran, go, visible, write_pair
from tests.helpers.toy_stages import CopyStages

pytestmark = pytest.mark.usefixtures("inline")

LEFT = "a_L.tif"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shoot of two photos, split into out."""
    folder = tmp_path_factory.mktemp("split")
    (folder / "shoot").mkdir()
    for seed, name in enumerate("ab"):
        write_test_dpraw(folder / "shoot" / f"{name}.CR2", 64, 64, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "LocalEngine", InlineEngine)
        run_split(folder)
    return folder


@pytest.fixture
def done(split: Path, tmp_path: Path) -> Path:
    """A copy of that with its times."""
    shutil.copytree(split, tmp_path / "done")
    return tmp_path / "done"


def run_split(folder: Path, settings: Settings | None = None, **options: bool) -> Ran:
    settings = settings or Settings()
    stages = SplitStages(settings)
    return go(folder / "shoot", folder / "out", stages, settings, pairs=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_a_result_that_was_cut_off_is_made_again(done: Path, size: int) -> None:
    left = done / "out" / LEFT
    whole = left.read_bytes()
    left.write_bytes(whole[:size])
    ran = run_split(done)
    assert ran.codes == {"a": "done", "b": "already-done"}
    assert left.read_bytes() == whole


def test_a_result_of_zeros_is_made_again(done: Path) -> None:
    left = done / "out" / LEFT
    whole = left.read_bytes()
    left.write_bytes(bytes(len(whole)))  # a disk that lost its content in a power cut
    assert run_split(done).codes == {"a": "done", "b": "already-done"}
    assert left.read_bytes() == whole


@pytest.mark.parametrize("compression", [None, "lzw", "packbits"])
def test_an_edited_result_is_kept_and_reported(done: Path, compression: str | None) -> None:
    left = done / "out" / LEFT
    tifffile.imwrite(left, np.zeros((64, 64, 3), np.uint8), compression=compression)
    edited = left.read_bytes()
    ran = run_split(done)
    assert ran.codes == {"a": "already-done", "b": "already-done"}
    (warning,) = ran.photos["a"]["warnings"]
    assert warning == f"{left} was changed after dpbatch wrote it, and is kept"
    assert warning in ran.text
    assert not ran.photos["b"]["warnings"]
    assert left.read_bytes() == edited
    other = Settings(raw=RawSettings(swap=True))
    assert run_split(done, other).codes == {"a": "target-changed", "b": "done"}
    assert left.read_bytes() == edited


def test_a_result_that_was_only_touched_is_neither_edited_nor_made_again(done: Path) -> None:
    for path in (done / "out").glob("*.tif"):
        os.utime(path, ns=(1, 1))
    ran = run_split(done)
    assert ran.codes == {"a": "already-done", "b": "already-done"}
    assert not ran.photos["a"]["warnings"]
    assert run_split(done, Settings(raw=RawSettings(swap=True))).codes == {"a": "done", "b": "done"}


def test_the_journal_has_the_checksum_of_every_result(done: Path) -> None:
    past = read_past(LocalFolder(done / "out").log())
    for target in ("a_R.tif", "b_R.tif"):
        record = past[target].done
        assert record is not None
        assert len(record.outputs) == 2
        for output in record.outputs:
            content = (done / "out" / output.path).read_bytes()
            assert output.blake2b == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_results_are_recognised_where_the_journal_was_lost(done: Path) -> None:
    before = visible(done / "out")
    journal = done / "out" / ".dpbatch" / "journal.jsonl"
    known = read_past(LocalFolder(done / "out").log())
    journal.unlink()
    assert run_split(done).codes == {"a": "already-done", "b": "already-done"}
    assert visible(done / "out") == before
    again = read_past(LocalFolder(done / "out").log())
    assert set(again) == set(known)
    for target, past in known.items():
        old, new = past.done, again[target].done
        assert old is not None
        assert new is not None
        assert (new.outputs, new.fingerprint) == (old.outputs, old.fingerprint)
        assert [file.blake2b for file in new.inputs] == [file.blake2b for file in old.inputs]
    found = verify(done / "out")
    assert (found.is_good, found.counts) == (True, {"adopted": 4})


def test_damage_from_before_the_journal_was_lost_is_never_called_as_written(done: Path) -> None:
    out = done / "out"
    content = bytearray((out / LEFT).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(byte ^ 1 for byte in content[middle : middle + 200])
    (out / LEFT).write_bytes(content)
    (out / ".dpbatch" / "journal.jsonl").unlink()
    assert run_split(done).codes["a"] == "already-done"
    assert verify(out).counts == {"adopted": 4}
    said = CliRunner().invoke(main, ["verify", str(out)])
    assert (said.exit_code, "as written" in said.output) == (0, False)
    assert "adopted: found without a journal by a later run" in said.output
    content[middle] ^= 2  # what happens after that is detected
    (out / LEFT).write_bytes(content)
    assert verify(out).counts == {"adopted": 3, "changed": 1}
    assert run_split(done, overwrite=True).codes == {"a": "done", "b": "done"}
    assert verify(out).counts == {"as written": 4}


def test_a_damaged_result_without_a_journal_is_kept_and_called_damaged(done: Path) -> None:
    out = done / "out"
    (out / LEFT).write_bytes((out / LEFT).read_bytes()[:1000])
    (out / ".dpbatch" / "journal.jsonl").unlink()
    ran = run_split(done)
    assert ran.codes == {"a": "target-exists", "b": "already-done"}
    message = ran.photos["a"]["message"]
    assert f"{out / LEFT} exists and does not open: it is damaged" in message
    assert "--overwrite makes it again" in message
    assert run_split(done, overwrite=True).codes["a"] == "done"


def test_another_date_without_a_checksum_is_not_called_a_change(done: Path) -> None:
    journal = done / "out" / ".dpbatch" / "journal.jsonl"
    lines = map(json.loads, journal.read_text().splitlines())
    for_old = [
        {**line, "outputs": [{**file, "blake2b": ""} for file in line.get("outputs", ())]}
        if "target" in line
        else line
        for line in lines
    ]
    journal.write_text("".join(json.dumps(line) + "\n" for line in for_old))
    os.utime(done / "out" / LEFT, ns=(1, 1))
    ran = run_split(done, Settings(raw=RawSettings(swap=True)))
    assert ran.codes == {"a": "target-changed", "b": "done"}
    assert f"{LEFT} may have been changed: another date, and no checksum" in ran.text


def test_a_damaged_journal_loses_only_what_its_damaged_lines_said(done: Path) -> None:
    journal = done / "out" / ".dpbatch" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = (bytes(len(line)) if b'"a_R.tif"' in line else line for line in lines)
    journal.write_bytes(b"".join(damaged))
    assert run_split(done).codes == {"a": "already-done", "b": "already-done"}


def test_without_a_journal_only_results_of_this_photo_and_these_settings_are_done(
    done: Path,
) -> None:
    def forget() -> None:
        (done / "out" / ".dpbatch" / "journal.jsonl").unlink()

    before = visible(done / "out")
    forget()
    other = Settings(output=OutputSettings(bit_depth=8))
    assert set(run_split(done, other).codes.values()) == {"target-exists"}
    forget()
    write_test_dpraw(done / "shoot" / "a.CR2", 64, 64, seed=9)  # another photo of the name
    (done / "out" / "b_L.tif").write_bytes(before["b_L.tif"][:1000])
    assert set(run_split(done).codes.values()) == {"target-exists"}
    (done / "out" / "b_L.tif").write_bytes(before["b_L.tif"])
    assert visible(done / "out") == before


def test_the_state_of_a_result_follows_from_its_stamp_and_content(tmp_path: Path) -> None:
    results = Results(LocalFolder(tmp_path), CopyStages())
    path = tmp_path / "a.tif"
    path.write_bytes(b"result")
    known = replace(stamp(path), path="a.tif")
    of_old = replace(known, blake2b="")
    assert results.state(known) is results.state(of_old) is State.AS_WRITTEN
    os.utime(path, ns=(1, 1))
    assert results.state(known) is State.AS_WRITTEN
    assert results.state(of_old) is State.TOUCHED
    path.write_bytes(b"edited")
    assert results.state(known) is State.EDITED
    path.write_bytes(b"longer than it was")
    assert results.state(known) is results.state(of_old) is State.EDITED
    for content in (b"", b"r"):  # for these stages one byte is no picture
        path.write_bytes(content)
        assert results.state(known) is results.state(of_old) is State.DAMAGED
    path.unlink()
    assert results.state(known) is State.MISSING


def test_a_result_that_may_not_be_read_is_kept(tmp_path: Path) -> None:
    class NotPermitted(CopyStages):
        def opens(self, path: Path) -> bool:
            raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.tif"
    path.write_bytes(b"result")
    known = replace(stamp(path), path="a.tif")
    path.write_bytes(b"other")
    assert Results(LocalFolder(tmp_path), NotPermitted()).state(known) is State.EDITED


def test_verify_compares_checksums(done: Path) -> None:
    out = done / "out"
    good = verify(out)
    assert (good.is_good, good.counts, good.files) == (True, {"as written": 4}, ())
    assert CliRunner().invoke(main, ["verify", str(out)]).exit_code == 0

    flipped = bytearray((out / LEFT).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    stat = (out / LEFT).stat()
    (out / LEFT).write_bytes(flipped)
    os.utime(out / LEFT, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # nothing else tells
    (out / "b_L.tif").write_bytes(b"short")
    (out / "b_R.tif").unlink()
    bad = verify(out)
    assert not bad.is_good
    assert bad.counts == {"as written": 1, "changed": 2, "missing": 1}
    assert {(file.file, file.finding) for file in bad.files} == {
        (LEFT, "changed"),
        ("b_L.tif", "changed"),
        ("b_R.tif", "missing"),
    }
    ran = CliRunner().invoke(main, ["verify", str(out)])
    assert ran.exit_code == 1
    assert f"changed: {LEFT}: its checksum is " in ran.output
    assert "changed: b_L.tif: 5 bytes, expected " in ran.output
    said = CliRunner().invoke(main, ["verify", str(out), "--json"])
    assert json.loads(said.output)["counts"] == bad.counts


def test_verify_needs_a_journal_with_results(tmp_path: Path) -> None:
    with pytest.raises(AbortError, match="no journal; give the folder"):
        verify(tmp_path)
    with pytest.raises(AbortError, match="no journal, and no such folder"):
        verify(tmp_path / "missing")
    (tmp_path / ".dpbatch").mkdir()
    (tmp_path / ".dpbatch" / "journal.jsonl").write_text('{"event": "run-started"}\n')
    with pytest.raises(AbortError, match="no results in this journal"):
        verify(tmp_path)


def test_remote_results_are_checked_and_verified_too(tmp_path: Path) -> None:
    write_pair(tmp_path / "shoot", "a", "pixels of a")
    write_pair(tmp_path / "shoot", "b", "pixels of b")
    out = remote(f"memory://{tmp_path.name}/out")
    go(tmp_path / "shoot", out)
    assert verify(out).counts == {"as written": 2}
    store.write(out / "a.tif", b"")
    store.write(out / "b.tif", b"b fo slexiP")
    assert verify(out).counts == {"changed": 2}
    assert go(tmp_path / "shoot", out).codes == {"a": "done", "b": "already-done"}
    assert store.read(out / "a.tif") == b"a fo slexip"


def test_the_journal_keeps_warnings(tmp_path: Path) -> None:
    write_pair(tmp_path / "shoot", "a")
    go(tmp_path / "shoot", tmp_path / "out", CopyStages(warnings=("no \x1b[2Jlens",)))
    past = read_past(LocalFolder(tmp_path / "out").log())["a.tif"]
    assert past.last.warnings == ("no \x1b[2Jlens",)
    status = read_status(tmp_path / "out")
    assert status.latest_run is not None
    assert [warning.message for warning in status.latest_run.warnings] == ["no \x1b[2Jlens"]
    assert f"warnings:\n  {tmp_path / 'shoot' / 'a_L.tif'}: no \\x1b[2Jlens" in to_text(status)


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_a_picture_opens_if_it_is_there_to_its_end(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, pixels)
    else:
        encode = imagecodecs.png_encode if kind == "png" else imagecodecs.jpeg_encode
        path.write_bytes(encode(pixels))
    whole = path.read_bytes()
    assert opens(path)
    for size in (0, 1, 8, 20, 100, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        assert not opens(path), size
    for other in (bytes(len(whole)), b"retouched by hand", whole[:8] + bytes(len(whole) - 8)):
        path.write_bytes(other)
        assert not opens(path)


def test_the_check_of_a_result_prints_nothing(tmp_path: Path) -> None:
    """In a process of its own: pytest handles what is logged."""
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    tifffile.imwrite(path, pixels, description="x" * 2000, software="y" * 3000)
    path.write_bytes(path.read_bytes()[:1000])
    script = (
        "import sys\nfrom pathlib import Path\nfrom dpbatch.output.whole import opens\n"
        "sys.exit(opens(Path(sys.argv[1])))"
    )
    checked = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
