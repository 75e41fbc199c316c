"""Where the time of a thread goes, by stage."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from dpbatch.tools.benchmark.figures import Spent


class Clock:
    """Adds up the time of stages; that of an inner stage does not count for the outer one.

    Only the thread that made it is timed: what other threads do is processor time of the stage
    that waits for them.
    """

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {}
        self._open: list[str] = []
        self._thread = threading.get_ident()
        self._mark = (0.0, 0.0)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for a stage."""
        if threading.get_ident() != self._thread:
            yield
            return
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """Begin a stage."""
        self._charge()
        self._open.append(name)

    def leave(self) -> None:
        """End the stage that began last."""
        self._charge()
        self._open.pop()

    def watch(self, name: str, function: str) -> None:
        """Count the time of every call of a function for a stage.

        function: as for `find`. It is replaced for the rest of the process.
        """
        owner, attribute = find(function)
        setattr(owner, attribute, self._timed(name, getattr(owner, attribute)))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed

    def _charge(self) -> None:
        """Count the time since the last change for the stage that is open."""
        _wait_for_device()
        now = time.perf_counter(), time.process_time()
        if self._open:
            spent = self.spent.setdefault(self._open[-1], Spent())
            spent.wall_s += now[0] - self._mark[0]
            spent.cpu_s += now[1] - self._mark[1]
        self._mark = now


def find(function: str) -> tuple[Any, str]:
    """Return the module or class that has a function, and its name there.

    function: "module:name" or "module:Class.name". Raises ImportError or AttributeError where it is
    not there.
    """
    module, _, path = function.partition(":")
    *owners, attribute = path.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    getattr(owner, attribute)
    return owner, attribute


def _wait_for_device() -> None:
    """Let a GPU end what it was given, or its time would count for a later stage."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
