"""What is found in a bucket, and what is said where nothing can be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dpbatch.batch.scan import Inputs, scan
from dpbatch.errors import AbortError, SettingsError
from dpbatch.location import Location, RemotePath, path_below
from dpbatch.storage import store
from dpbatch.storage.choose import input_source
from dpbatch.storage.reach import problem_here
from tests.helpers.s3_server import remote
from tests.helpers.toy_runs import go


def scan_all(given: tuple[Location, ...], **options: Any) -> Inputs[Location]:
    return scan(given, input_source(given), **options)


def test_local_and_remote_inputs_are_scanned_together(shoot: RemotePath, local: Path) -> None:
    found = scan_all((local, shoot))
    photos = [(photo.root, photo.stem, type(photo.paths[0])) for photo in found.photos]
    here, there = local.parent.name, shoot.parent.name
    assert sorted(photos, key=str) == sorted(
        [
            (f"{here}/shoot", "a", type(local)),
            (f"{here}/shoot", "b", type(local)),
            (f"{there}/shoot", "a", RemotePath),
            (f"{there}/shoot", "b", RemotePath),
        ],
        key=str,
    )


def test_a_bucket_is_listed_as_a_folder_would_be(
    shoot: RemotePath, out: RemotePath, local: Path
) -> None:
    names = ["IMG_1.CR2", "day 1/IMG_2.CR2", ".hidden/IMG_3.CR2", "notes.txt", "c_L.tif"]
    for name in names:
        store.write(shoot / name, b"x")
        (local / name).parent.mkdir(exist_ok=True)
        (local / name).write_bytes(b"x")
    for options in (
        {},
        {"recursive": False},
        {"pairs": False, "exclude": ("day 1/*",)},
        {"include": ("*.cr2",)},
    ):
        found = scan_all((shoot,), out=out, **options)
        expected = scan_all((local,), **options)
        assert [(p.kind, p.stem, p.folder, p.root) for p in found.photos] == [
            (p.kind, p.stem, p.folder, p.root) for p in expected.photos
        ]
        assert [p.path.name for p in found.others] == [p.path.name for p in expected.others]
        given = {path_below(path, shoot) for photo in found.photos for path in photo.paths}
        assert given == {path_below(p, local) for photo in expected.photos for p in photo.paths}


def test_what_lies_in_the_output_folder_is_no_input_and_one_file_can_be_given(
    shoot: RemotePath,
) -> None:
    store.write(shoot / "IMG_1.CR2", b"x")
    store.write(shoot / "out" / "IMG_9.CR2", b"x")
    found = scan_all((shoot,), out=shoot / "out", pairs=False)
    assert [photo.stem for photo in found.photos] == ["IMG_1"]
    found = scan_all((shoot / "IMG_1.CR2",))
    assert [(photo.stem, photo.folder, photo.root) for photo in found.photos] == [
        ("IMG_1", "", "shoot")
    ]


def test_a_key_that_is_no_path_is_not_lost_in_silence(shoot: RemotePath, out: RemotePath) -> None:
    import fsspec

    fsspec.filesystem("s3").pipe_file(f"{shoot}/day 1//c_L.tif", b"x")
    ran = go(shoot, out, dry_run=True)
    assert (ran.end["failed"], ran.end["would_run"]) == (1, 2)
    assert "empty or dotted parts" in ran.text
    assert store.files_below(out) == {}


def test_what_is_not_there_is_told_before_any_work(
    shoot: RemotePath, out: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"^s3://no-such-bucket/x: no such file or folder"):
        go(remote("s3://no-such-bucket/x"), out)
    with pytest.raises(SettingsError, match=r"nothing: no such file or folder"):
        go(shoot / "nothing", out)
    with pytest.raises(AbortError, match=r"^s3://no-such-bucket/out: the output folder cannot be"):
        go(shoot, remote("s3://no-such-bucket/out"))

    def forbidden(path: RemotePath, recursive: bool) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(store, "files_below", forbidden)
    with pytest.raises(AbortError, match=r"cannot be listed: Access Denied; credentials come from"):
        go(shoot, out)


def test_a_machine_that_cannot_reach_the_store_says_so(
    shoot: RemotePath, out: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = shoot / "a_L.tif"
    assert problem_here((shoot, one, tmp_path), out) == ""
    assert problem_here((tmp_path,), tmp_path / "out") == ""
    assert store.files_below(out) == {}
    nothing = shoot / "nothing.CR2"
    assert problem_here((nothing,), out).startswith(f"cannot read {nothing}: ")
    assert problem_here((one,), remote("s3://no-such-bucket/out")).startswith(
        "cannot write s3://no-such-bucket/out"
    )
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert "pip install" in problem_here((one,), out)
