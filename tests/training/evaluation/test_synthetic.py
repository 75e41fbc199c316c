import json
import sys

import cv2
import numpy as np
import pytest

from training.evaluation import synthetic as synthetic
from training.evaluation.metrics import psnr_db
from training.evaluation.synthetic import (
    LEVELS,
    InFocus,
    Level,
    evaluate_synthetic,
    formatted,
    in_focus,
    linear_photos,
    main,
    make_pair,
    wiener,
)


@pytest.fixture(scope="module")
def photo():
    """Letters on blotches, linear light."""
    rng = np.random.default_rng(0)
    blotches = rng.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    picture = cv2.resize(blotches, (144, 96), interpolation=cv2.INTER_CUBIC)
    for y in range(14, 96, 16):
        colour = rng.integers(0, 256, 3).tolist()
        cv2.putText(picture, "Xyz 0123 abc", (2, y), 0, 0.6, colour, 1, cv2.LINE_AA)
    return picture.astype(np.float32) / np.float32(255)


def mean_of(views):
    return np.uint16((views.left.astype(np.float64) + views.right) / 2 * 65535 + 0.5)


@pytest.mark.parametrize("level", LEVELS)
def test_the_blur_keeps_within_its_level_and_uses_most_of_it(photo, level):
    coc = make_pair(photo, 0, level.radius_px, "none").coc_px
    assert 0.8 * level.radius_px < np.abs(coc).max() <= level.radius_px
    assert np.abs(coc).min() < 0.1 * level.radius_px


def test_the_same_photo_gives_the_same_pair_and_another_place_another(photo):
    one, same, other = (make_pair(photo, index, 6.0, "ISO 3200") for index in (0, 0, 1))
    np.testing.assert_array_equal(one.views.left, same.views.left)
    np.testing.assert_array_equal(one.views.right, same.views.right)
    assert not np.array_equal(one.coc_px, other.coc_px)


def test_noise_changes_the_views_alone_and_each_in_its_own_way(photo):
    clean, noisy = (make_pair(photo, 0, 3.0, noise) for noise in ("none", "ISO 3200"))
    np.testing.assert_array_equal(clean.truth, noisy.truth)
    np.testing.assert_array_equal(clean.coc_px, noisy.coc_px)
    left, right = (
        getattr(noisy.views, side) - getattr(clean.views, side) for side in ("left", "right")
    )
    assert 0.005 < left.std() < 0.05
    assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.05


def test_the_filter_gains_where_it_knows_the_blur(photo):
    level = Level(3.0, 0.5, (0.01, 0.01))
    pair = make_pair(photo, 0, level.radius_px, "none")
    before = psnr_db(pair.mean_view, pair.truth)
    restored = psnr_db(wiener(pair, level.balances[0], level.step_px), pair.truth)
    assert restored > before + 1
    pair.coc_px[:] = level.radius_px  # the wrong blur
    assert psnr_db(wiener(pair, level.balances[0], level.step_px), pair.truth) < restored - 1


def test_every_method_stands_at_every_level_and_noise(photo):
    levels = (Level(2.0, 0.5, (0.01, 0.01)),)
    rows = evaluate_synthetic([photo, photo[::-1].copy()], {"mean": mean_of}, levels)
    assert [(row.method, row.noise) for row in rows] == [
        (method, noise) for noise in synthetic.NOISES for method in ("input", "wiener", "mean")
    ]
    for row in (rows[0], rows[3]):
        same = next(r for r in rows if (r.method, r.noise) == ("mean", row.noise))
        assert same.psnr_db == pytest.approx(row.psnr_db, abs=0.01)
    pairs = [make_pair(p, i, 2.0, "none") for i, p in enumerate((photo, photo[::-1].copy()))]
    expected = np.mean([psnr_db(pair.mean_view, pair.truth) for pair in pairs])
    assert rows[0].psnr_db == pytest.approx(expected)


def test_what_is_in_focus_is_measured_by_how_much_it_changes(photo):
    def brighter(views):
        return np.uint16(np.clip(mean_of(views) + 655.35, 0, 65535))

    dark = photo * np.float32(0.8)
    unchanged = in_focus([dark], {"mean": mean_of})
    assert [row.noise for row in unchanged] == list(synthetic.NOISES)
    assert all(row.mean_change < 1e-5 for row in unchanged)
    assert in_focus([dark], {"brighter": brighter})[0].mean_change == pytest.approx(0.01, abs=1e-3)


def test_the_table_says_whether_the_law_holds(photo):
    rows = evaluate_synthetic([photo], {}, (Level(2.0, 1.0, (0.01, 0.01)),))
    changes = [InFocus("a", "none", 0.5 / 255), InFocus("b", "none", 1.5 / 255)]
    lines = formatted(rows, changes).splitlines()
    assert lines[1].split() == ["radius", "noise", "input", "wiener"]
    assert f"{rows[0].psnr_db:.2f}" in lines[2]
    assert lines[-2].endswith("0.50, under 1")
    assert lines[-1].endswith("1.50, NOT under 1")


def test_the_command_takes_a_folder_of_photos(tmp_path, photo, monkeypatch, capsys):
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), (photo * 255).astype(np.uint8))
    assert len(linear_photos(tmp_path)) == 2
    monkeypatch.setattr(synthetic, "LEVELS", (Level(2.0, 1.0, (0.01, 0.01)),))
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), "--count", "1", "--json", str(figures)])
    main()
    assert "1 photos" in capsys.readouterr().out
    assert [row["method"] for row in json.loads(figures.read_text())["rows"]][:2] == [
        "input",
        "wiener",
    ]


def test_a_folder_without_photos_ends_with_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path)])
    with pytest.raises(SystemExit, match="no photos"):
        main()
