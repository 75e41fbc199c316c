"""The next photo of an actor, copied into its process while it restores another one.

What arrives from the object store is read-only, and its pages are not this process's: the first
reading of 120 MB costs tens of milliseconds in which a GPU has nothing to do. The copy is in memory
that the restorer may use as its own, which is pinned where CUDA is in use, so that a GPU reads it
directly.
"""

from __future__ import annotations

import io
import pickle
import threading
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from dpbatch.engine.memory import host_memory

T = TypeVar("T")
Array = npt.NDArray[np.generic]


class NextPhoto(Generic[T]):
    """The one photo that is held ahead; keys are the driver's numbers of photos."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[int, T] | None = None

    def hold(self, key: int, photo: T) -> None:
        """Hold a copy of a photo in the place of the last one."""
        with self._lock:
            self._held = None
            self._held = key, own_copy(photo)

    def take(self, key: int, photo: T) -> T:
        """Return the copy of the photo, or the photo itself where there is none; hold nothing.

        Waits for a copy that is being made.
        """
        with self._lock:
            held, self._held = self._held, None
        return held[1] if held is not None and held[0] == key else photo


def own_copy(value: T) -> T:
    """Return a copy of an object with all its arrays, which may be written to."""
    stream = io.BytesIO()
    copier = _Copier(stream, protocol=5)
    copier.dump(value)
    copied: T = _Restored(io.BytesIO(stream.getbuffer()), copier.arrays).load()
    return copied


class _Copier(pickle.Pickler):
    """Pickles an object without its arrays, which it copies."""

    def __init__(self, stream: io.BytesIO, protocol: int) -> None:
        super().__init__(stream, protocol)
        self.arrays: list[Array] = []

    def persistent_id(self, item: object) -> int | None:
        if type(item) is not np.ndarray or item.dtype.hasobject:
            return None
        self.arrays.append(_copied(item))
        return len(self.arrays) - 1


class _Restored(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, arrays: list[Array]) -> None:
        super().__init__(stream)
        self._arrays = arrays

    def persistent_load(self, number: int) -> Array:
        return self._arrays[number]


def _copied(array: Array) -> Array:
    memory = host_memory(array.nbytes)
    copy = memory.view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy
