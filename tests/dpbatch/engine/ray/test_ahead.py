"""The next photo of an actor: copied while another is restored, taken once, never mixed up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dpbatch.engine.ray.ahead import NextPhoto, own_copy
from tests.helpers.toy_stages import Toy


@dataclass(frozen=True)
class Loaded:
    """As a loaded photo is: arrays inside of frozen dataclasses."""

    mosaics: tuple[npt.NDArray[np.uint16], ...]
    path: Path
    inner: Loaded | None = None


def read_only(seed: int, shape: tuple[int, ...] = (6, 4)) -> npt.NDArray[np.uint16]:
    mosaic = np.random.default_rng(seed).integers(0, 9999, shape, np.uint16)
    mosaic.flags.writeable = False
    return mosaic


def test_a_copy_has_the_same_values_in_memory_of_its_own() -> None:
    strided = read_only(2, (8, 8))[::2, 1::3]
    photo = Loaded((read_only(0), strided, read_only(3, (0, 4))), Path("a"))
    photo = replace(photo, inner=Loaded((read_only(1),), Path("b")))
    copy = own_copy(photo)
    assert copy.inner is not None
    assert photo.inner is not None
    assert (copy.path, copy.inner.path) == (photo.path, photo.inner.path)
    for mine, theirs in zip(
        copy.mosaics + copy.inner.mosaics, photo.mosaics + photo.inner.mosaics, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.flags.writeable
        assert not np.shares_memory(mine, theirs)


def test_what_is_no_array_of_numbers_is_pickled() -> None:
    value: dict[str, Any] = {"names": np.array(["a", None], object), "text": "x", "number": 1.5}
    copy = own_copy(value)
    assert list(copy.pop("names")) == list(value.pop("names"))
    assert copy == value


def test_a_photo_is_taken_once_and_only_by_its_own_number() -> None:
    held: NextPhoto[npt.NDArray[np.uint16]] = NextPhoto()
    first, second = read_only(0), read_only(1)
    assert held.take(7, first) is first
    held.hold(7, first)
    taken = held.take(7, first)
    assert taken is not first
    np.testing.assert_array_equal(taken, first)
    assert held.take(7, first) is first
    held.hold(8, second)
    assert held.take(9, first) is first  # another actor has restored photo 8
    assert held.take(8, second) is second


def test_an_actor_is_sent_a_photo_of_its_node_or_of_one_without_an_actor() -> None:
    pytest.importorskip("ray")
    from dpbatch.engine.ray.photos import PhotoInFlight, next_of

    def photo(name: str, node: str) -> PhotoInFlight[Toy]:
        return PhotoInFlight(Toy(name), "load", None, node=node)

    actor: Any = SimpleNamespace(node="mine")
    other, bare, mine = photo("a", "other"), photo("b", "bare"), photo("c", "mine")

    def chosen(*photos: PhotoInFlight[Toy]) -> PhotoInFlight[Toy] | None:
        return next_of(photos, actor, lambda node: node != "bare")

    assert chosen(other, bare, mine) is mine
    assert chosen(other, bare) is bare
    assert chosen(other) is None
    mine.prefetched_by = actor
    assert chosen(mine) is None
    assert len({other.number, bare.number, mine.number}) == 3
