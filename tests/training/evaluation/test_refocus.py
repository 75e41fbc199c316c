"""Refocusing on rendered scenes of two depths."""

from pathlib import Path

import cv2
import pytest
from skimage import data

from training.evaluation.refocus import evaluate
from training.evaluation.synthetic import linear_photos


@pytest.mark.slow
def test_a_refocused_photo_is_nearer_to_what_the_lens_would_have_drawn(tmp_path: Path) -> None:
    for name in ("coffee", "astronaut"):
        picture = getattr(data, name)()[:384, :512]
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    found = evaluate(linear_photos(tmp_path), radius_px=4.0, count=1, model="tiny")
    assert set(found) == {("00", "near"), ("00", "far")}
    for values in found.values():
        assert values["refocused"] > values["restored"] + 2
        assert values["refocused"] > values["original"] + 2
