import numpy as np
import pytest

from training.evaluation.layers import score_outlines

SIZE = (160, 200)
X = np.broadcast_to(np.arange(SIZE[1], dtype=np.float32), SIZE)
TRUE_PX = np.where(X < 100, -1, 3).astype(np.float32)


@pytest.mark.parametrize("shift_px", [0, 3, -6])
def test_a_displaced_step_is_off_by_its_displacement(shift_px: int) -> None:
    found = np.roll(TRUE_PX, shift_px, axis=1)
    score = score_outlines(found, TRUE_PX)
    assert score is not None
    assert score.off_px == pytest.approx(abs(shift_px), abs=0.6)
    assert score.bleed_px == pytest.approx(abs(shift_px), abs=1)
    assert score.found == 1


def test_a_ramp_lies_at_the_outline_and_bleeds_a_quarter_of_its_width() -> None:
    ramp = (-1 + 4 * np.clip((X - 99.5) / 16 + 0.5, 0, 1)).astype(np.float32)
    score = score_outlines(ramp, TRUE_PX)
    assert score is not None
    assert score.off_px < 0.6
    assert score.bleed_px == pytest.approx(4, abs=0.7)


def test_a_map_without_steps_has_no_outline_and_a_scene_without_them_no_score() -> None:
    score = score_outlines(np.ones(SIZE, np.float32), TRUE_PX)
    assert score is not None
    assert (score.found, score.bleed_px) == (0, 12)
    assert score_outlines(TRUE_PX, np.ones(SIZE, np.float32)) is None
