"""A bucket, and a shoot in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpbatch.location import RemotePath
from tests.helpers.s3_server import S3Server, put_folder, remote
from tests.helpers.toy_runs import write_shoot


@pytest.fixture
def bucket(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    server.forget()
    return server.bucket()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return write_shoot(tmp_path / "shoot")


@pytest.fixture
def shoot(bucket: str, local: Path) -> RemotePath:
    """The same in the bucket."""
    put_folder(local, f"{bucket}/shoot")
    return remote(f"{bucket}/shoot")


@pytest.fixture
def out(bucket: str) -> RemotePath:
    return remote(f"{bucket}/out")
