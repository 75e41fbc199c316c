"""Files of an earlier choice that stay beside a new picture are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpbatch.storage import store
from tests.helpers.s3_server import S3Server, remote
from tests.helpers.toy_runs import go, visible, write_pair
from tests.helpers.toy_stages import CopyStages

pytestmark = pytest.mark.usefixtures("inline")

WITH_LAYERS = CopyStages(suffixes=(".tif", ".depth.tif", ".blur.tif"))
WITH_ONE = CopyStages(fingerprint="one", suffixes=(".tif", ".depth.tif"))
PLAIN = CopyStages(fingerprint="plain")
LEFT = "left by an earlier run with other settings, and not of this picture: "


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    write_pair(tmp_path / "shoot" / "day 1", "a")
    return tmp_path / "shoot"


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_layers_that_are_not_written_again_are_named_once_and_kept(
    options: dict[str, bool], shoot: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert go(shoot, out, WITH_LAYERS).photos["a"]["warnings"] == []
    before = visible(out)
    ran = go(shoot, out, WITH_ONE, **options)
    assert ran.photos["a"]["warnings"] == [f"{LEFT}a.blur.tif"]
    assert f"{LEFT}a.blur.tif" in ran.text
    ran = go(shoot, out, PLAIN, **options)
    assert ran.photos["a"]["warnings"] == [f"{LEFT}a.depth.tif"]
    assert visible(out) == before
    assert go(shoot, out, PLAIN, **options).photos["a"]["warnings"] == []


def test_nothing_is_said_of_layers_that_are_gone_or_belong_to_another_picture(
    shoot: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    go(shoot, out, WITH_LAYERS)
    as_dng = CopyStages(suffixes=(".dng",))
    assert go(shoot, out, as_dng).photos["a"]["warnings"] == []
    (out / "day 1" / "a.depth.tif").unlink()
    assert go(shoot, out, PLAIN).photos["a"]["warnings"] == [f"{LEFT}a.blur.tif"]


def test_layers_in_a_bucket_are_named_too(shoot: Path, server: S3Server) -> None:
    out = remote(f"{server.bucket()}/stale")
    go(shoot, out, WITH_LAYERS)
    ran = go(shoot, out, PLAIN)
    assert ran.photos["a"]["warnings"] == [f"{LEFT}a.depth.tif, a.blur.tif"]
    assert store.stamp_of(out / "day 1" / "a.depth.tif").size > 0
