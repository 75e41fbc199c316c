"""The judge of the demosaic, on made-up pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dpbatch.tools import demosaic_quality
from dpbatch.tools.demosaic_quality import compare, formatted, score
from ldp.srgb import decode_srgb
from ldp.types import FloatArray


def stripes(height: int = 100, width: int = 130) -> FloatArray:
    """An (H, W, 3) sRGB-encoded picture of slanted lines, from 12 to 2.5 px apart, in orange."""
    y, x = np.indices((height, width), np.float32)
    phase = 2 * np.pi * (x + 0.3 * y) / (12 - 9.5 * y / height)
    lines = 0.5 + 0.4 * np.cos(phase)
    return (lines[..., None] * np.array([0.9, 0.7, 0.5]) + 0.05).astype(np.float32)


@pytest.mark.parametrize("upright", [False, True])
def test_the_own_demosaic_beats_ahd_on_fine_lines(upright: bool) -> None:
    picture = stripes().transpose(1, 0, 2) if upright else stripes()
    comparison = compare("stripes", picture)
    assert comparison.own.cpsnr_db > comparison.ahd.cpsnr_db + 3
    assert comparison.own.fringe < comparison.ahd.fringe / 2


def test_both_have_the_same_colours_where_nothing_is_to_demosaic() -> None:
    even = np.broadcast_to(np.array([0.7, 0.4, 0.2], np.float32), (64, 80, 3))
    comparison = compare("even", even)
    for scores in (comparison.ahd, comparison.own):
        assert scores.cpsnr_db > 65
        assert scores.fringe < 0.2


def test_scores_of_a_known_error() -> None:
    truth = np.full((40, 50, 3), 0.5, np.float32)
    linear = decode_srgb(truth.copy())
    assert score(linear, truth).fringe == pytest.approx(0, abs=0.02)
    wrong = truth.copy()
    wrong[..., 0] += 0.01
    wrong[:8], wrong[-8:], wrong[:, :8], wrong[:, -8:] = 0, 0, 0, 0  # the border is not scored
    scores = score(decode_srgb(wrong), truth)
    assert scores.psnr_db[0] == pytest.approx(40, abs=0.01)
    assert min(scores.psnr_db[1:]) > 100
    assert scores.cpsnr_db == pytest.approx(40 + 10 * np.log10(3), abs=0.01)
    lighter = score(decode_srgb(truth + np.float32(0.01)), truth)
    assert scores.fringe > 0.9 > 0.1 > lighter.fringe


def test_the_command_prints_every_picture_and_their_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = (stripes(64, 80)[..., ::-1] * 255).astype(np.uint8)
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), picture)
    monkeypatch.setattr("sys.argv", ["demosaic_quality", str(tmp_path), "--rounds", "0"])
    demosaic_quality.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["a.png", "b.png", "mean"]
    assert lines[1].split()[1:] == lines[3].split()[1:]


def test_the_mean_is_that_of_the_pictures() -> None:
    one = compare("one", stripes(64, 80))
    other = replace(one, own=replace(one.own, cpsnr_db=one.own.cpsnr_db + 2))
    mean = formatted([one, other]).splitlines()[-1].split()
    assert float(mean[9]) == pytest.approx(one.own.cpsnr_db + 1, abs=0.006)


def test_a_folder_without_pictures_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["demosaic_quality", str(tmp_path)])
    with pytest.raises(SystemExit, match="no pictures"):
        demosaic_quality.main()
