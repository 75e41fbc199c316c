"""Name the command-line option that helps where the model library reports an error.

The messages of the library speak of its arguments only.
"""

from __future__ import annotations

from ldp.errors import (
    ClipUnavailableError,
    DeviceError,
    DeviceMemoryError,
    LdpError,
    SoftMapError,
    UnconvertedError,
)

_HINTS: dict[type[LdpError], str] = {
    ClipUnavailableError: "without CLIP: --blur disparity",
    DeviceError: "use --device cpu",
    DeviceMemoryError: "use --device cpu",
    SoftMapError: "use --blur clip",
    UnconvertedError: "convert it: dpbatch models convert FILE --out ldp-released.safetensors",
}


def hinted(error: BaseException) -> str:
    """Return the text of an error, with the option that helps if it is one of ldp's."""
    hints = [hint for kind, hint in _HINTS.items() if isinstance(error, kind)]
    return "; ".join([str(error), *hints])
