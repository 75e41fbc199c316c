import numpy as np
import pytest

from ldp.blur.beliefs import LARGEST_STEP, Costs, beliefs

FAR, NEAR, LEVELS = 1, 6, 8
SURE = np.float32(100)


def _prefers(level: int) -> np.ndarray:
    """Costs that are 0 for one level and rise beside it."""
    return SURE * np.abs(np.arange(LEVELS) - level).astype(np.float32)


def _chain(inside: list[int | None], border: list[int | None], tie: float) -> Costs:
    """Parts in a row; None says nothing."""
    silent = np.zeros(LEVELS, np.float32)
    columns, borders = (
        np.stack([silent if level is None else _prefers(level) for level in levels], axis=1)
        for levels in (inside, border)
    )
    pairs = np.array([(part, part + 1) for part in range(len(border))], np.int32)
    return Costs(columns, borders, pairs, np.full(len(border), tie, np.float32))


def _chosen(costs: Costs) -> list[int]:
    return [int(level) for level in beliefs(costs).argmin(axis=0)]


def test_an_even_part_with_a_near_outline_beside_a_far_one_is_near() -> None:
    assert _chosen(_chain([None, FAR], [NEAR], tie=1)) == [NEAR, FAR]


def test_an_even_part_beside_a_near_one_is_as_far_as_its_other_side_says() -> None:
    assert _chosen(_chain([NEAR, None, FAR], [NEAR, FAR], tie=1)) == [NEAR, FAR, FAR]


def test_ties_carry_a_depth_through_parts_without_evidence() -> None:
    assert _chosen(_chain([NEAR, None, None, None], [None] * 3, tie=1)) == [NEAR] * 4


def test_without_evidence_or_borders_nothing_is_preferred() -> None:
    none = np.zeros((LEVELS, 0), np.float32)
    costs = Costs(np.zeros((LEVELS, 2), np.float32), none, np.zeros((0, 2), np.int32), none[0])
    assert not beliefs(costs).any()


@pytest.mark.parametrize("seed", range(5))
def test_the_levels_that_cost_least_in_all_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = Costs(
        rng.uniform(0, 5, (LEVELS, 4)).astype(np.float32),
        rng.uniform(0, 5, (LEVELS, 3)).astype(np.float32),
        np.array([(0, 1), (1, 2), (1, 3)], np.int32),
        np.array([1, 3, 2], np.float32),
    )
    parts, borders = np.arange(4), np.arange(3)

    def total(levels: tuple[int, ...]) -> float:
        given = np.array(levels)
        return costs.of_views(given, parts, borders) + costs.of_ties(given, borders)

    assert tuple(_chosen(costs)) == min(np.ndindex(*[LEVELS] * 4), key=total)


def test_a_large_even_part_of_a_picture_follows_its_whole_outline() -> None:
    side = 12
    numbers = np.arange(side * side).reshape(side, side)
    pairs = np.concatenate(
        [
            np.stack([numbers[:, :-1].ravel(), numbers[:, 1:].ravel()], axis=1),
            np.stack([numbers[:-1].ravel(), numbers[1:].ravel()], axis=1),
        ]
    ).astype(np.int32)
    row, column = np.divmod(np.arange(side * side), side)
    is_even = (np.abs(row - 5.5) < 4) & (np.abs(column - 5.5) < 4)
    is_outline = is_even[pairs].sum(axis=1) == 1
    inside = np.stack([0.05 * _prefers(FAR)] * side**2, axis=1)
    inside[:, is_even] *= 0.01  # a map that has it wrong
    border = np.zeros((LEVELS, len(pairs)), np.float32)
    border[:, is_outline] = 0.1 * _prefers(NEAR)[:, None]
    ties = np.where(is_outline, 8, 400).astype(np.float32)
    found = beliefs(Costs(inside.astype(np.float32), border, pairs, ties)).argmin(axis=0)
    np.testing.assert_array_equal(found, np.where(is_even, NEAR, FAR))


@pytest.mark.parametrize(("apart", "share"), [(1, 1 / LARGEST_STEP), (LARGEST_STEP, 1), (7, 1)])
def test_ties_cost_in_proportion_up_to_a_largest_step(apart: int, share: float) -> None:
    costs = _chain([None, None], [None], tie=3)
    assert costs.of_ties(np.array([0, apart]), np.array([0])) == pytest.approx(3 * share)
