"""URLs as remote paths, and paths of this machine beside them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from dpbatch.errors import SettingsError
from dpbatch.location import Location, parse_location, path_below, short_name
from tests.helpers.s3_server import remote


@pytest.mark.parametrize(
    "url", ["s3://bucket", "gs://bucket/shoot/IMG_1.CR2", "sftp://me@host:22/a b/ü?#%20[1].tif"]
)
def test_a_url_is_a_remote_path_and_comes_back(url: str) -> None:
    path = remote(url)
    assert str(path) == short_name(path) == url
    assert str(pickle.loads(pickle.dumps(path / "x.tif"))) == f"{url}/x.tif"
    assert remote(f"{url}/") == path


def test_a_remote_path_has_the_parts_of_a_path_and_asks_no_disk() -> None:
    path = remote("S3://bucket/day 1/IMG_1.v2.CR2")
    assert (path.name, path.stem, path.suffix) == ("IMG_1.v2.CR2", "IMG_1.v2", ".CR2")
    assert str(path.parent) == "s3://bucket/day 1"
    assert str(path.parent.parent.parent) == "s3://bucket"
    assert str(path.with_name("a.tif")) == "s3://bucket/day 1/a.tif"
    assert path.relative_to(remote("s3://bucket")).as_posix() == "day 1/IMG_1.v2.CR2"
    with pytest.raises(ValueError, match="not below"):
        path.relative_to(remote("gs://bucket"))
    assert not {"exists", "open", "stat", "is_file", "is_dir", "__fspath__"} & set(dir(path))


def test_locations_are_sorted_together_and_those_of_this_machine_come_first() -> None:
    ordered: list[Location] = [
        Path("a/b"),
        Path("z"),
        remote("gs://a/z"),
        remote("s3://a/b"),
        remote("s3://a/b/c"),
        remote("s3://a.b"),
    ]
    assert sorted(set(ordered)) == ordered


@pytest.mark.parametrize(
    ("location", "folder", "below"),
    [
        ("s3://b/x/y.tif", "s3://b/x", "y.tif"),
        ("s3://b/x/y.tif", "s3://b/xy", None),
        ("s3://b/x", "s3://b/x", "."),
        ("s3://b/x", "gs://b", None),
        ("s3://b/x", "/", None),
        ("/x/y", "/x", "y"),
        ("/x/y", "/y", None),
        ("/x/y", "s3://x", None),
    ],
)
def test_what_lies_below_a_folder(location: str, folder: str, below: str | None) -> None:
    assert path_below(parse_location(location), parse_location(folder)) == below


@pytest.mark.parametrize(
    "given", ["shoot", "/data/s3:/x", "C:/photos", "a:b/c", "/s3:", "/backup:/x", "/s3:/bucket/x"]
)
def test_a_path_of_this_machine_stays_one(given: str) -> None:
    assert parse_location(given) == Path(given)


def test_a_file_url_is_a_plain_path() -> None:
    assert parse_location("file:///data/shoot") == Path("/data/shoot")


@pytest.mark.parametrize("url", ["s3://", "s3:///shoot"])
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="expected s3://BUCKET"):
        parse_location(url)


def test_paths_alone_import_nothing_of_it() -> None:
    script = (
        "import sys, dpbatch.batch.run, dpbatch.cli.main\n"
        "assert not {'fsspec', 's3fs', 'botocore', 'aiohttp'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
