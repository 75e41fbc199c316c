"""The ratio of disparity to the radius of the blur, found in a map."""

from dataclasses import replace

import numpy as np
import pytest

from ldp.blur.ratio import USUAL_RATIO, disparity_per_radius
from ldp.types import BlurMap

RADIUS_PX = np.linspace(-12, 12, 60 * 80, dtype=np.float32).reshape(60, 80)
SURE = np.ones_like(RADIUS_PX)
NOISE_PX = np.random.default_rng(0).normal(0, 0.1, RADIUS_PX.shape).astype(np.float32)


def a_map(ratio: float) -> BlurMap:
    return BlurMap(
        SURE, ratio * RADIUS_PX + NOISE_PX, SURE, radius_px=RADIUS_PX, radius_confidence=SURE
    )


@pytest.mark.parametrize("ratio", [0.2, 0.65])
def test_the_ratio_is_that_of_the_photo(ratio: float) -> None:
    assert disparity_per_radius(a_map(ratio), 80) == pytest.approx(ratio, rel=0.05)
    of_one_net = replace(a_map(ratio), radius_confidence=None)
    assert disparity_per_radius(of_one_net, 80) == pytest.approx(ratio, rel=0.05)


def test_where_nothing_is_sure_it_is_the_usual_one() -> None:
    unsure = a_map(0.2)
    for unknown in (
        replace(unsure, radius_px=None),
        replace(unsure, confidence=0 * SURE),
        replace(unsure, radius_confidence=0 * SURE),
    ):
        assert disparity_per_radius(unknown, 80) == USUAL_RATIO
