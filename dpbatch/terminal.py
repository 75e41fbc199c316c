"""Text for a terminal: names and tags come from files, and may hold anything.

A leaf: imports nothing of dpbatch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import unicodedata
from pathlib import PurePath
from typing import IO, TextIO

# Control characters, undecodable bytes of names (lone surrogates), line and paragraph separators.
_HARMFUL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# They reorder the text around them.
_DIRECTIONS = {*"\u061c\u200e\u200f", *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))}
_CLOSED = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ESHUTDOWN}


def printable(text: str, lines: bool = False) -> str:
    r"""Return text that a terminal shows and does not obey.

    An escape character becomes \x1b, a byte that is not UTF-8 \xff, a mark that reverses the text
    around it \u202e, a line end \n; with `lines` line ends stay.
    """
    return "".join(
        letter if not _is_harmful(letter) or (lines and letter == "\n") else _escaped(letter)
        for letter in text
    )


def _is_harmful(letter: str) -> bool:
    return letter in _DIRECTIONS or unicodedata.category(letter) in _HARMFUL_CATEGORIES


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def named(name: str, message: str) -> str:
    """Return a message about an input with the input's name before it, once.

    name: the input's path, or the two of a pair with " + " between them. message: that of an error
    begins with the name of the file, or of both, which is left out; that of one of a pair tells
    which half is meant, and stays.
    """
    files = " + ".join(PurePath(path).name for path in name.split(" + "))
    for known in (name, files):
        if message.startswith(f"{known}: "):
            return f"{name}: {message.removeprefix(f'{known}: ')}"
    return f"{name}: {message}"


def say(text: str, stream: IO[str]) -> None:
    """Write a line and flush it. A stream that nobody reads any more is not an error.

    A closed pipe or a terminal that is gone swallows this line and all further ones.
    """
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        _mute(stream)


def accept_any_text(*streams: TextIO) -> None:
    """Make streams show characters that their encoding lacks as escapes, rather than fail."""
    for stream in streams:
        with contextlib.suppress(AttributeError, ValueError):  # not a stream of the system
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]


def _mute(stream: IO[str]) -> None:
    """Send what is left in the stream's buffer, and all that follows, to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
