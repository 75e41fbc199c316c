"""Focus control on rendered scenes of two depths."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from training.evaluation.focus import RUNS, evaluate, score
from training.evaluation.synthetic import linear_photos

SIZE = (96, 128)


def test_a_choice_loses_what_it_leaves_and_the_other_depth_is_the_untouched_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.8, (*SIZE, 3))
    untouched = truth + rng.normal(0, 0.1, truth.shape)
    is_near = np.zeros(SIZE, bool)
    is_near[:, 64:] = True
    near = np.where(is_near[..., None], truth * 1.001, untouched)
    far = untouched.copy()  # nothing of what was asked for
    pictures = dict(zip(RUNS, (truth * 1.001, untouched, near, far), strict=True))
    scores = score(pictures, truth, is_near, margin_px=5)
    good, bad = scores["near"], scores["far"]
    assert good.loss_db == good.all_loss_db == 0
    assert good.untouched == good.all_untouched == bad.untouched == 1
    assert bad.loss_db == pytest.approx(bad.gain_db)
    assert bad.gain_db > 30


@pytest.mark.slow
def test_the_chosen_depth_is_as_sharp_as_restored_whole_and_the_other_is_left_alone(
    tmp_path: Path,
) -> None:
    for name in ("coffee", "astronaut"):
        picture = getattr(data, name)()[:384, :512]
        large = cv2.resize(picture, (512, 384), interpolation=cv2.INTER_AREA)
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), large[..., ::-1])
    scores = evaluate(linear_photos(tmp_path), radius_px=4.0, count=1, model="tiny")
    for found in scores.values():
        assert found.gain_db > 2
        assert found.loss_db < 0.1
        assert found.untouched > 0.99
        # Around outlines a share is lost: the more a network gains, the more in dB.
        assert found.all_loss_db < 0.075 * found.all_gain_db
