"""Choose a depth for each part of a picture so that edges move with the nearer of their two sides.

Where one thing hides another, the edge between them is the outline of the nearer one and has its
depth, whichever of the two shows texture. So what the views say at a border counts for the larger
of the two depths beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray

_ROUNDS = 80
_DAMPING = np.float32(0.5)
# Of the trees that span the parts, the share that goes through a border. With 1, as in plain belief
# propagation, what little is known within a large even part goes around in it until it counts for
# more than its whole outline.
_SHARE = np.float32(0.5)
LARGEST_STEP = 4
"""Neighbours that differ by more levels pay no more."""

Levels = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Costs:
    """What it costs to give each of n parts one of k levels, the nearest last.

    inside: (k, n), for the level of a part. border: (k, e), for the higher level of the two
        parts of a border. pairs: (e, 2), those parts.
    ties: (e,), for levels that differ by LARGEST_STEP or more; for less, in proportion.
    """

    inside: FloatArray
    border: FloatArray
    pairs: npt.NDArray[np.int32]
    ties: FloatArray

    def of_views(self, levels: Levels, parts: Levels, borders: Levels) -> float:
        """Return the costs inside some parts and at some borders, without the ties."""
        higher = levels[self.pairs[borders]].max(axis=1)
        inside = self.inside[levels[parts], parts].sum()
        return float(inside + self.border[higher, borders].sum())

    def of_ties(self, levels: Levels, borders: Levels) -> float:
        """Return what the ties at some borders cost."""
        steps = np.abs(np.diff(levels[self.pairs[borders]], axis=1)[:, 0])
        return float((self.ties[borders] * np.minimum(steps / LARGEST_STEP, 1)).sum())


def beliefs(costs: Costs) -> FloatArray:
    """Return for each level of each part what all costs at least, about, less a constant; (k, n).

    Tree-reweighted min-sum belief propagation (Wainwright et al., "MAP Estimation via Agreement on
    Trees", IEEE TIT 2005), all messages at once with damping. Each takes time in proportion to the
    levels (Felzenszwalb and Huttenlocher, "Efficient Belief Propagation for Early Vision", IJCV
    2006).
    """
    count = costs.inside.shape[1]
    edges = np.arange(len(costs.pairs))
    source, target = np.concatenate([costs.pairs, costs.pairs[:, ::-1]]).T
    border = np.concatenate([edges, edges])
    order = np.argsort(target, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    reverse = np.concatenate([place[len(edges) :], place[: len(edges)]])[order]
    source, target, border = source[order], target[order], border[order]
    parts, starts = np.unique(target, return_index=True)
    of_border, ties = costs.border[:, border] / _SHARE, costs.ties[border] / _SHARE
    messages = np.zeros((len(costs.inside), len(order)), np.float32)
    believed = costs.inside
    for _ in range(_ROUNDS if len(order) else 0):
        told = _messages(believed[:, source] - messages[:, reverse], of_border, ties)
        messages = _DAMPING * messages + (1 - _DAMPING) * told
        sums = np.zeros((len(messages), count), np.float32)
        sums[:, parts] = np.add.reduceat(messages, starts, axis=1)
        believed = costs.inside + _SHARE * sums
    return believed


def _messages(known: FloatArray, border: FloatArray, ties: FloatArray) -> FloatArray:
    """Return what each message says of its target's levels, (k, m), the least 0.

    known: (k, m), of the source without its target. The target is the nearer one, or as near, in
    the first pass, and the source in the second one.
    """
    slope = ties / np.float32(LARGEST_STEP)
    upwards = known.copy()
    least = known[0].copy()
    for level in range(1, len(known)):
        np.minimum(least, known[level], out=least)
        np.minimum(upwards[level], upwards[level - 1] + slope, out=upwards[level])
        np.minimum(upwards[level], least + ties, out=upwards[level])
    upwards += border
    downwards = known + border
    least = downwards[-1].copy()
    for level in range(len(known) - 2, -1, -1):
        np.minimum(least, downwards[level], out=least)
        np.minimum(downwards[level], downwards[level + 1] + slope, out=downwards[level])
        np.minimum(downwards[level], least + ties, out=downwards[level])
    said = np.minimum(upwards, downwards)
    return np.asarray(said - said.min(axis=0), np.float32)
