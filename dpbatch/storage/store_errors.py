"""Translation of what the libraries of object stores raise into OSError."""

from __future__ import annotations

import contextlib
import errno
import importlib
from collections.abc import Iterator
from functools import cache

# What a library raises beside OSError: (module, class). A name that it lacks is passed over.
_AMAZON = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
)
_GOOGLE = (
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("aiohttp", "ClientError"),
)
_AZURE = (("azure.core.exceptions", "AzureError"), ("aiohttp", "ClientError"))
_FOREIGN_ERRORS = {
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}


@contextlib.contextmanager
def as_os_errors(protocol: str) -> Iterator[None]:
    """Turn the errors of a protocol's library in the block into OSError, with their own message.

    Missing credentials are a PermissionError.
    """
    try:
        yield
    except OSError:
        raise
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, "the name is not UTF-8, as a store expects it") from error
    except _foreign_errors(protocol) as error:
        if type(error).__name__ in _NO_CREDENTIALS:
            raise PermissionError(errno.EACCES, str(error)) from error
        raise OSError(str(error)) from error


def reason(error: OSError) -> str:
    """Return an error's message without its number and file names."""
    return error.strerror or str(error) or type(error).__name__


@cache
def _foreign_errors(protocol: str) -> tuple[type[Exception], ...]:
    found = []
    for module, name in _FOREIGN_ERRORS.get(protocol, ()):
        try:
            found.append(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            continue
    return tuple(found)
