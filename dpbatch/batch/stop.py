"""Whether a run must stop, and why."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopSignal:
    """Collects requests to stop a run.

    While it is entered, the first Ctrl-C or SIGTERM requests a stop that finishes the files being
    written; the second raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.is_interrupted = False
        """Whether Ctrl-C or SIGTERM requested the stop."""
        self.reason = ""
        """Why else the run must stop: the first reason that was given."""
        self._handlers: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_interrupted:
            raise KeyboardInterrupt
        self.is_interrupted = True

    def request(self, reason: str) -> None:
        """Request a stop for another reason than Ctrl-C."""
        self.reason = self.reason or reason

    def is_requested(self) -> bool:
        """Whether the run must stop."""
        return self.is_interrupted or bool(self.reason)
