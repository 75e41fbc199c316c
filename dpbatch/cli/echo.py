"""Output of the commands."""

from __future__ import annotations

import sys

from dpbatch.terminal import printable, say


def echo(text: str, err: bool = False) -> None:
    """Print one or more lines, harmless whatever file they quote. err: to the standard error."""
    say(printable(text, lines=True), sys.stderr if err else sys.stdout)
