"""How objects with large arrays travel through a pipe between two processes.

Arrays pass in chunks, directly from the source array's memory into the target's. There is no shared
memory that could run out or be left behind, and no second copy of a picture of half a gigabyte.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dpbatch.engine.memory import host_memory

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Package:
    """A pickled object whose large buffers follow on the pipe, in chunks."""

    pickled: bytes
    buffer_bytes: tuple[int, ...]


def send(
    connection: Connection, value: object, wrap: Callable[[Package], object] = lambda p: p
) -> None:
    """Send wrap(package), then the package's buffers; blocks until the other end has read them."""
    pickles: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=pickles.append)
    buffers = [item.raw() for item in pickles]
    connection.send(wrap(Package(pickled, tuple(buffer.nbytes for buffer in buffers))))
    for buffer in buffers:
        for start in range(0, buffer.nbytes, _CHUNK_BYTES):
            connection.send_bytes(buffer[start : start + _CHUNK_BYTES])


def receive(connection: Connection, package: Package) -> Any:
    """Unpickle a package, its buffers read from the pipe into new memory."""
    buffers = []
    for size in package.buffer_bytes:
        buffer = host_memory(size).data
        for start in range(0, size, _CHUNK_BYTES):
            connection.recv_bytes_into(buffer[start : start + _CHUNK_BYTES])
        buffers.append(buffer)
    return pickle.loads(package.pickled, buffers=buffers)


def relay(package: Package, source: Connection, target: Connection) -> None:
    """Send on a package whose buffers are still in a pipe, without a copy in this process."""
    target.send(package)
    for size in package.buffer_bytes:
        for _ in range(0, size, _CHUNK_BYTES):
            target.send_bytes(source.recv_bytes())
