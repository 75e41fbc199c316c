"""What is found in a bucket, and what is said where nothing can be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dpbatch.batch.scan import scan
from dpbatch.errors import AbortError, SettingsError
from dpbatch.storage import store
from dpbatch.storage.places import places_of
from dpbatch.storage.reach import problem_here
from dpbatch.storage.urls import location, place
from tests.helpers.s3_server import S3Server, put_folder
from tests.helpers.toy_runs import go, write_shoot


@pytest.fixture
def bucket(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return server.bucket()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return write_shoot(tmp_path / "shoot")


@pytest.fixture
def shoot(bucket: str, local: Path) -> Path:
    """The same in the bucket."""
    put_folder(local, f"{bucket}/shoot")
    return place(f"{bucket}/shoot")


@pytest.fixture
def out(bucket: str) -> Path:
    return place(f"{bucket}/out")


def test_a_bucket_is_listed_as_a_folder_would_be(shoot: Path, out: Path, local: Path) -> None:
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
        places = places_of((shoot,), out)
        found = scan((shoot,), list_remote=places.files_below, **options)  # type: ignore[arg-type]
        expected = scan((local,), **options)  # type: ignore[arg-type]
        assert [(p.kind, p.stem, p.folder, p.root) for p in found.photos] == [
            (p.kind, p.stem, p.folder, p.root) for p in expected.photos
        ]
        assert [p.path.name for p in found.others] == [p.path.name for p in expected.others]
        given = {path.relative_to(shoot) for photo in found.photos for path in photo.paths}
        assert given == {p.relative_to(local) for photo in expected.photos for p in photo.paths}


def test_what_lies_in_the_output_folder_is_no_input_and_one_file_can_be_given(
    shoot: Path,
) -> None:
    store.write(shoot / "IMG_1.CR2", b"x")
    store.write(shoot / "out" / "IMG_9.CR2", b"x")
    places = places_of((shoot,), shoot / "out")
    found = scan((shoot,), out=shoot / "out", pairs=False, list_remote=places.files_below)
    assert [photo.stem for photo in found.photos] == ["IMG_1"]
    found = scan((shoot / "IMG_1.CR2",), list_remote=places.files_below)
    assert [(photo.stem, photo.folder, photo.root) for photo in found.photos] == [
        ("IMG_1", "", "shoot")
    ]


def test_a_key_that_is_no_path_is_not_lost_in_silence(shoot: Path, out: Path) -> None:
    import fsspec

    fsspec.filesystem("s3").pipe_file(f"{str(shoot)[5:]}/day 1//c_L.tif", b"x")
    ran = go(shoot, out, dry_run=True)
    assert (ran.end["failed"], ran.end["would_run"]) == (1, 2)
    assert "empty or dotted parts" in ran.text
    assert store.files_below(out) == {}


def test_what_is_not_there_is_told_before_any_work(
    shoot: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"^s3://no-such-bucket/x: no such file or folder"):
        go(place("s3://no-such-bucket/x"), out)
    with pytest.raises(SettingsError, match=r"nothing: no such file or folder"):
        go(shoot / "nothing", out)
    with pytest.raises(AbortError, match=r"^s3://no-such-bucket/out: the output folder cannot be"):
        go(shoot, place("s3://no-such-bucket/out"))

    def forbidden(path: Path, recursive: bool) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(store, "files_below", forbidden)
    with pytest.raises(AbortError, match=r"cannot be listed: Access Denied; credentials come from"):
        go(shoot, out)


def test_a_machine_that_cannot_reach_the_store_says_so(
    shoot: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = shoot / "a_L.tif"
    assert problem_here((shoot, one, tmp_path), out) == ""
    assert problem_here((tmp_path,), tmp_path / "out") == ""
    assert store.files_below(out) == {}
    nothing = shoot / "nothing.CR2"
    assert problem_here((nothing,), out).startswith(f"cannot read {location(nothing)}: ")
    assert problem_here((one,), place("s3://no-such-bucket/out")).startswith(
        "cannot write s3://no-such-bucket/out"
    )
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert "pip install" in problem_here((one,), out)
