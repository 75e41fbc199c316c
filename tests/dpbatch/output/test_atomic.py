"""A file under its final name is whole, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpbatch.errors import DiskFullError, OutputError
from dpbatch.output.atomic import atomic_file, remove_stale_temporaries

KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from dpbatch.output.atomic import atomic_file
with atomic_file(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os._exit(9)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave_temporary_of_dead_process(target: Path) -> Path:
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(target)], check=False)
    (left,) = target.parent.glob(".*.dpbatch-*")
    return left


def test_target_appears_only_at_the_end_and_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "IMG_1.tif"
    with atomic_file(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".tif"
        temporary.write_bytes(b"content")
        assert not target.exists()
    assert names(target.parent) == ["IMG_1.tif"]
    assert target.read_bytes() == b"content"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError(), KeyboardInterrupt()])
def test_failure_leaves_the_former_file_and_no_temporary(
    tmp_path: Path, error: BaseException
) -> None:
    target = tmp_path / "x.png"
    target.write_bytes(b"former")
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_file(target) as temporary:  # noqa: PT012
        temporary.write_bytes(b"new")
        raise error
    assert names(tmp_path) == ["x.png"]
    assert target.read_bytes() == b"former"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_has_its_own_error(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFullError, match=r"x\.tif.*space"), atomic_file(tmp_path / "x.tif"):
        raise OSError(number, "full")
    assert names(tmp_path) == []


def test_unusable_folder_is_an_output_error_that_names_the_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    target = tmp_path / "file" / "x.tif"
    with pytest.raises(OutputError, match=re.escape(str(target))), atomic_file(target):
        pytest.fail("the block must not run")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask permissions")
def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    with atomic_file(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_longest_possible_name(tmp_path: Path) -> None:
    target = tmp_path / ("\N{HIRAGANA LETTER A}" * 83 + ".tif")  # 253 bytes in UTF-8
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"x")
    assert names(tmp_path) == [target.name]


def test_temporary_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    left = leave_temporary_of_dead_process(tmp_path / "IMG_1.tif")
    assert left.read_bytes() == b"half"
    assert remove_stale_temporaries(tmp_path) == [left]
    assert names(tmp_path) == []


def test_temporary_of_a_live_run_and_other_files_stay(tmp_path: Path) -> None:
    for name in (".hidden.tif", "IMG_1.dpbatch-0-1-2.tif", ".IMG_1.dpbatch-notours.tif"):
        (tmp_path / name).write_bytes(b"")
    with atomic_file(tmp_path / "IMG_1.tif") as temporary:
        assert remove_stale_temporaries(tmp_path) == []
        assert temporary.exists()
    assert len(names(tmp_path)) == 4


def test_temporary_of_another_machine_stays_for_a_day(tmp_path: Path) -> None:
    left = leave_temporary_of_dead_process(tmp_path / "IMG_1.tif")
    foreign = left.with_name(re.sub("dpbatch-[0-9a-f]{8}", "dpbatch-00000000", left.name))
    left.rename(foreign)
    assert remove_stale_temporaries(tmp_path) == []
    two_days_ago = time.time() - 2 * 86400
    os.utime(foreign, (two_days_ago, two_days_ago))
    assert remove_stale_temporaries(tmp_path) == [foreign]


def test_no_folder_has_no_temporaries(tmp_path: Path) -> None:
    assert remove_stale_temporaries(tmp_path / "none") == []
