"""Whether all machines of a run see the same inputs and the same output folder."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dpbatch.errors import AbortError
from dpbatch.location import Location, RemotePath
from dpbatch.storage.base import FOLDER


@dataclass(frozen=True)
class _Seen:
    """What the driver sees; every other machine must see the same.

    sizes_bytes: of the local inputs, -1 for a folder.
    token: a file in the output folder, None where that is remote.
    """

    local_inputs: tuple[Path, ...]
    sizes_bytes: tuple[int, ...]
    remote_inputs: tuple[RemotePath, ...]
    out: Location
    token: Path | None

    def __call__(self) -> str:
        """Return what this machine cannot see or write, with its path; "" where all is well."""
        return self._input_problem() or self._output_problem() or self._remote_problem()

    def _input_problem(self) -> str:
        for path, size in zip(self.local_inputs, self.sizes_bytes, strict=True):
            try:
                here = next(_sizes((path,)))
                if path.is_dir():
                    os.listdir(path)  # noqa: PTH208  (whether it can be listed, were it empty)
            except OSError as error:
                return f"cannot read the input {path}: {error.strerror}"
            if here != size:
                return f"sees another file than the driver at {path}; expected a shared folder"
        return ""

    def _output_problem(self) -> str:
        if self.token is None:
            return ""
        if not self.token.exists():
            return (
                f"does not see the driver's output folder {self.out}; expected a folder "
                "that all nodes share, or object storage"
            )
        try:
            with tempfile.TemporaryFile(dir=self.token.parent):
                return ""
        except OSError as error:
            return f"cannot write the output folder {self.out}: {error.strerror}"

    def _remote_problem(self) -> str:
        if not self.remote_inputs and isinstance(self.out, Path):
            return ""
        from dpbatch.storage.reach import problem_here

        return problem_here(self.remote_inputs, self.out)


@contextmanager
def shared_check(inputs: Iterable[Location], out: Location) -> Iterator[Callable[[], str]]:
    """Give a function that returns what is wrong on the machine where it runs, "" for nothing.

    inputs: files and folders; a file must have the same size everywhere. out: the output folder,
    on storage that all machines share. While the context is open it holds a small file that every
    machine must find. Any of them may be on object storage.

    Raises AbortError where this machine itself cannot read or write them.
    """
    inputs = tuple(inputs)
    local = tuple(path for path in inputs if isinstance(path, Path))
    remote = tuple(path for path in inputs if isinstance(path, RemotePath))
    token = None
    if isinstance(out, Path):
        token = out / FOLDER / f"probe-{secrets.token_hex(8)}"
    try:
        if token is not None:
            token.parent.mkdir(parents=True, exist_ok=True)
            token.touch()
        sizes_bytes = tuple(_sizes(local))
    except OSError as error:
        raise AbortError(f"{error.filename}: {error.strerror}") from error
    try:
        yield _Seen(local, sizes_bytes, remote, out, token)
    finally:
        if token is not None:
            with suppress(OSError):
                token.unlink()


def _sizes(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        yield -1 if path.is_dir() else path.stat().st_size
