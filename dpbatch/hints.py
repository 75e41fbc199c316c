"""What to type on the command line when the model library reports an error.

The library speaks of its arguments only; the options that set them are known here.
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
    DeviceMemoryError: "use --device cpu, or a smaller --tile",
    SoftMapError: "use --blur clip",
    UnconvertedError: "convert it: dpbatch models convert FILE --out ldp-released.safetensors",
}


def hinted(error: BaseException) -> str:
    """Return an error's text, for those of ldp with the option that helps."""
    hints = [hint for kind, hint in _HINTS.items() if isinstance(error, kind)]
    return "; ".join([str(error), *hints])
