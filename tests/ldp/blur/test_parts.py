import numpy as np

from ldp.blur.parts import divide

SIDE_PX = 8
Y, X = np.mgrid[:60, :80].astype(np.float32)
IS_DISC = (X - 40) ** 2 + (Y - 30) ** 2 < 20**2
PICTURE = np.where(IS_DISC[..., None], [0.7, 0.4, 0.3], [0.2, 0.3, 0.6]).astype(np.float32)
PARTS = divide(PICTURE, SIDE_PX)


def test_parts_end_at_edges() -> None:
    share = PARTS.means(IS_DISC.astype(np.float32))
    outline_px = 2 * np.pi * 20
    assert (PARTS.area_px * np.minimum(share, 1 - share)).sum() < outline_px


def test_parts_cover_the_picture_and_are_connected() -> None:
    assert PARTS.area_px.sum() == IS_DISC.size
    assert PARTS.area_px.min() > 0
    assert 0.3 < PARTS.area_px.mean() / SIDE_PX**2 < 3


def test_borders_lie_between_their_two_parts() -> None:
    assert (PARTS.pairs[:, 0] < PARTS.pairs[:, 1]).all()
    at_border = PARTS.border_of >= 0
    pairs = PARTS.pairs[PARTS.border_of[at_border]]
    assert (pairs == PARTS.part_of[at_border][:, None]).any(axis=1).all()


def test_ties_are_broken_at_edges_and_as_long_as_the_border_elsewhere() -> None:
    share = PARTS.means(IS_DISC.astype(np.float32))[PARTS.pairs]
    across = np.abs(share[:, 0] - share[:, 1]) > 0.9
    within = np.abs(share[:, 0] - share[:, 1]) < 1e-6
    assert across.sum() > 10
    assert PARTS.ties[across].mean() < 0.2 * SIDE_PX
    assert PARTS.ties[within].mean() > 0.4 * SIDE_PX


def test_groups_are_neighbours() -> None:
    share = PARTS.means(IS_DISC.astype(np.float32))
    (disc,) = PARTS.groups(share > 0.5)
    assert PARTS.area_px[disc].sum() / IS_DISC.sum() > 0.97
    left_and_right = PARTS.groups((PARTS.means(X) < 8) | (PARTS.means(X) > 72))
    assert len(left_and_right) == 2


def test_means_are_weighted() -> None:
    weights = np.where(X % 2 == 0, 1, 1e-6).astype(np.float32)
    plane = np.where(X % 2 == 0, 3, 7).astype(np.float32)
    np.testing.assert_allclose(PARTS.means(plane, weights), 3, atol=1e-3)
