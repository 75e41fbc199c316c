from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dpbatch.cli.main import main
from dpbatch.output.metadata import read_tags
from dpbatch.raw.container import probe
from dpbatch.tools.camera import read_camera
from tests.helpers.scenes import write_depth_scene


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    return write_depth_scene(tmp_path)


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_the_command_writes_a_dual_pixel_raw(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out = tmp_path / "a.CR2"
    options = ("--near-m", 1, "--far-m", 3, "--f-number", 4, "--iso", 800, "--out", out)
    result = simulate(*scene, *options)
    assert result.exit_code == 0, result.output
    assert "256x128, circle of confusion" in result.output
    assert probe(out).is_dual_pixel
    again = simulate(*scene, *options)
    assert again.exit_code == 2
    assert "replace it with --overwrite" in again.output
    assert simulate(*scene, *options, "--overwrite").exit_code == 0


@pytest.mark.parametrize("iso", [65_535, 65_536, 102_400])
def test_inspect_finds_the_iso_that_was_asked_for(
    tmp_path: Path, scene: tuple[Path, Path], iso: int
) -> None:
    out = tmp_path / "a.CR2"
    options = ("--near-m", 1, "--far-m", 3, "--f-number", 8, "--iso", iso, "--out", out)
    result = simulate(*scene, *options)
    assert result.exit_code == 0, result.output
    assert read_camera(out, "cr2")[0].iso == str(iso)
    tags = read_tags(out)
    assert tags["Exif.Photo.ISOSpeedRatings"] == "65535"
    assert tags.get("Exif.Photo.RecommendedExposureIndex", "65535") == str(iso)


def test_the_help_says_which_distances_are_required() -> None:
    text = " ".join(CliRunner().invoke(main, ["simulate", "--help"]).output.split())
    assert text.count("required unless --depth-scale is given") == 2


def test_the_command_wants_a_cr2(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    result = simulate(*scene, "--depth-scale", 0.001, "--out", tmp_path / "a.tif")
    assert result.exit_code == 2
    assert "ends in .CR2" in result.output


def test_a_place_that_cannot_be_written_ends_with_a_message(
    tmp_path: Path, scene: tuple[Path, Path]
) -> None:
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "a.CR2"
    result = simulate(*scene, "--near-m", 1, "--far-m", 3, "--f-number", 8, "--out", out)
    assert result.exit_code == 3
    assert "could not be written" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give either --near-m with --far-m, or --depth-scale"),
        (("--near-m", 1), "give either --near-m with --far-m, or --depth-scale"),
        (("--near-m", 1, "--far-m", 2, "--depth-scale", 0.1), "give either --near-m"),
        (("--near-m", 0, "--far-m", 2), "a depth of 0.0 m: expected more than 0"),
        (("--near-m", 1, "--far-m", 1e300), "a depth of 1e+300 m: expected 1e-06 to 1e+06 m"),
        (("--depth-scale", 1e-300), "a depth of 1e-300 m: expected 1e-06 to 1e+06 m"),
        (("--near-m", 1, "--far-m", 3, "--focus-m", 0.05), "cannot focus at 0.05 m"),
    ],
)
def test_options_that_cannot_be_meant_write_nothing(
    tmp_path: Path, scene: tuple[Path, Path], options: tuple[object, ...], message: str
) -> None:
    result = simulate(*scene, *options, "--out", tmp_path / "new" / "a.CR2")
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "new").exists()
    simulate(*scene, "--near-m", 1, "--far-m", 3, "--f-number", 8, "--out", tmp_path / "a.CR2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.CR2", "depth.png", "picture.png"]
