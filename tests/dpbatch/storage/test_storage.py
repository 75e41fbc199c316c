"""Remote files: what is written is whole, what fails for a moment is tried
again, and what goes wrong is said in words."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dpbatch.errors import OutputError, SettingsError
from dpbatch.location import RemotePath
from dpbatch.storage import retry, store
from dpbatch.storage.stages import publish
from dpbatch.types import FileStamp
from tests.helpers.s3_server import S3Server, remote, stored


@pytest.fixture(params=["s3", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemotePath]:
    """A remote folder: of a store without folders and without renaming, and of one with both."""
    if request.param == "s3":
        yield remote(request.getfixturevalue("bucket") + "/some folder")
        return
    yield remote(f"memory://{tmp_path.name}/some folder")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES_S", (0.0, 0.0))


def test_what_is_not_installed_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = {"gs://b/x": "gcsfs", "az://b/x": "adlfs", "sftp://h/x": "paramiko"}
    for url, package in missing.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(SettingsError, match=f"pip install {package}$"):
            store.read(remote(url))
    with pytest.raises(SettingsError, match="not known: nosuch"):
        store.read(remote("nosuch://h/x"))
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SettingsError, match=r"pip install fsspec s3fs"):
        store.read(remote("s3://b/x"))


def test_what_is_written_is_read_listed_and_removed(root: RemotePath, tmp_path: Path) -> None:
    names = ["a.tif", "sub [1]/ü *.tif", "sub [1]/deep/c.tif"]
    for name in names:
        store.write(root / name, name.encode())
    assert {path.relative_to(root).as_posix() for path in store.files_below(root)} == set(names)
    assert set(store.files_below(root, recursive=False)) == {root / "a.tif"}
    for path, stamp in store.files_below(root).items():
        assert stamp == store.stamp_of(path)
        assert store.read(path).decode() == path.relative_to(root).as_posix()
    store.download(root / names[1], tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == names[1].encode()
    store.remove(root / "a.tif")
    store.remove(root / "a.tif")
    assert len(store.files_below(root)) == 2


def test_what_is_not_there_is_not_found(root: RemotePath, tmp_path: Path) -> None:
    assert store.files_below(root / "nothing") == {}
    for look in (store.stamp_of, store.read, lambda path: store.download(path, tmp_path / "x")):
        with pytest.raises(FileNotFoundError):
            look(root / "nothing")


def test_a_stamp_tells_other_content_and_not_the_same(root: RemotePath) -> None:
    store.write(root / "a", b"one")
    one = store.stamp_of(root / "a")
    assert one.path == str(root / "a")
    assert store.stamp_of(root / "a").is_as(one)
    store.write(root / "a", b"two")
    assert not store.stamp_of(root / "a").is_as(one)


def test_a_stores_own_word_for_the_content_counts_more_than_the_time() -> None:
    old = FileStamp("a", 3, 1, etag="one")
    assert FileStamp("b", 3, 2, etag="one").is_as(old)
    assert not FileStamp("b", 3, 1, etag="two").is_as(old)
    assert FileStamp("b", 3, 1).is_as(old)
    assert not FileStamp("b", 3, 2).is_as(old)


def test_a_name_that_is_not_utf8_is_an_os_error_at_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "PAUSES_S", (3600.0,))
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(OSError, match="not UTF-8"):
        store.upload(tmp_path / "a", remote(bucket) / "odd \udcff.tif")


def test_only_one_creates_a_file(root: RemotePath) -> None:
    store.create(root / "lock", b"first")
    with pytest.raises(FileExistsError):
        store.create(root / "lock", b"second")
    assert store.read(root / "lock") == b"first"


@pytest.mark.parametrize(
    ("number", "there"), [(errno.ENOSYS, b""), (errno.ENOSYS, b"first"), (errno.EBUSY, b"")]
)
def test_a_store_that_cannot_create_in_one_step_is_asked_first(
    number: int, there: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = remote(f"memory://creating/{number}/{len(there)}")
    if there:
        store.write(path, there)
    memory = fsspec.filesystem("memory")
    pipe_file = memory.pipe_file

    def refuse(key: str, content: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(number, "not implemented, or busy")
        pipe_file(key, content)

    monkeypatch.setattr(memory, "pipe_file", refuse)
    if there or number == errno.EBUSY:
        with pytest.raises(FileExistsError):
            store.create(path, b"second")
    else:
        store.create(path, b"second")
        assert store.read(path) == b"second"


def test_moving_replaces_and_leaves_nothing(root: RemotePath, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    store.write(root / "day 1" / "a.tif", b"old")
    store.upload(tmp_path / "new", root / "parts" / "1")
    store.move(root / "parts" / "1", root / "day 1" / "a.tif")
    assert list(store.files_below(root)) == [root / "day 1" / "a.tif"]
    assert store.read(root / "day 1" / "a.tif") == b"new"


def test_a_bucket_that_is_not_there_is_never_made(server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    for act in (
        lambda path: store.write(path, b""),
        lambda path: store.create(path, b""),
        lambda path: store.upload(tmp_path / "a", path),
        store.files_below,
    ):
        with pytest.raises(FileNotFoundError, match="bucket"):
            act(remote("s3://no-such-bucket/a"))


class Flaky:
    """A function that fails some times before it works."""

    def __init__(self, function: Any, error: Exception, times: int) -> None:
        self.function, self.error, self.times, self.calls = function, error, times, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return self.function(*arguments, **options)


def flaky_memory(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, times: int) -> Flaky:
    memory = fsspec.filesystem("memory")
    flaky = Flaky(getattr(memory, name), error, times)
    monkeypatch.setattr(memory, name, flaky)
    return flaky


@pytest.mark.usefixtures("no_pauses")
def test_what_fails_for_a_moment_is_tried_again_and_no_more_often_than_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = remote("memory://tried/a")
    store.write(path, b"a")
    flaky = flaky_memory(monkeypatch, "cat_file", OSError(errno.EIO, "SlowDown"), times=2)
    assert store.read(path) == b"a"
    assert flaky.calls == 3
    flaky.calls, flaky.times = 0, 99
    with pytest.raises(OSError, match="SlowDown"):
        store.read(path)
    assert flaky.calls == 3


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("no"), PermissionError("no"), OSError(errno.ENOSPC, "no")],
    ids=lambda error: type(error).__name__,
)
def test_what_will_not_change_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    flaky = flaky_memory(monkeypatch, "cat_file", error, times=1)
    with pytest.raises(type(error)):
        store.read(remote("memory://tried/a"))
    assert flaky.calls == 1


@pytest.mark.usefixtures("no_pauses")
def test_a_server_that_is_not_there_is_an_os_error(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(retry, "PAUSES_S", ())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(OSError, match="Could not connect"):
            store.read(remote("s3://bucket/x"))
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def targets_in(out: RemotePath, files: list[Path]) -> dict[Path, RemotePath]:
    return {file: out / file.name for file in files}


def make_results(folder: Path) -> tuple[list[Path], list[str]]:
    names = ["IMG_1.tif", "IMG_1.blur.tif"]
    for name in names:
        (folder / name).write_bytes(name.encode() * 1000)
    return [folder / name for name in names], names


def test_nothing_has_its_name_before_all_is_stored_and_the_picture_is_last(
    server: S3Server, bucket: str, tmp_path: Path
) -> None:
    files, names = make_results(tmp_path)
    out = remote(f"{bucket}/out")
    stamps = publish(targets_in(out, files), out / ".dpbatch" / "uploading")
    assert [stamp.path for stamp in stamps] == [f"{bucket}/out/{name}" for name in names]
    assert stored(f"{bucket}/out") == {file.name: file.read_bytes() for file in files}
    assert set(store.files_below(out)) == {out / name for name in names}
    puts = [path.rpartition("/")[2] for method, path in server.asked if method == "PUT"]
    assert puts[-2:] == ["IMG_1.blur.tif", "IMG_1.tif"]
    assert not {"IMG_1.blur.tif", "IMG_1.tif"} & set(puts[:-2])


def test_an_upload_that_fails_once_is_repeated(
    server: S3Server, bucket: str, tmp_path: Path
) -> None:
    files, _ = make_results(tmp_path)
    out = remote(f"{bucket}/out")
    server.fail_once("PUT", "uploading/")
    publish(targets_in(out, files), out / ".dpbatch" / "uploading")
    assert len(server.failed) == 1
    assert stored(f"{bucket}/out") == {file.name: file.read_bytes() for file in files}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("step", ["put_file", "cp_file"])
def test_what_cannot_be_stored_leaves_nothing_half(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = make_results(tmp_path)
    out = remote(f"memory://half/{step}")
    targets = targets_in(out, files)
    flaky_memory(monkeypatch, step, OSError(errno.EIO, "the store is down"), times=3)
    with pytest.raises(OutputError, match=r"^memory://half/.*/IMG_1.tif: .*the store is down"):
        publish(targets, out / "parts")
    assert store.files_below(out) == {}
    publish(targets, out / "parts")
    assert set(store.files_below(out)) == set(targets.values())


def test_bytes_that_got_lost_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = make_results(tmp_path)
    out = remote("memory://lost/out")
    memory = fsspec.filesystem("memory")
    put = memory.put_file

    def put_half(source: str, key: str) -> None:
        put(source, key)
        memory.pipe_file(key, memory.cat_file(key)[:500])

    monkeypatch.setattr(memory, "put_file", put_half)
    with pytest.raises(OutputError, match=r"9000 bytes of IMG_1.tif were sent, 500 are stored"):
        publish(targets_in(out, files), out / "parts")
    assert store.files_below(out) == {}
