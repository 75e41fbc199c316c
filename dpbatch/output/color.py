"""The ICC profile of sRGB, and turning a picture upright."""

from __future__ import annotations

import functools
import hashlib
import struct
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Scalar = TypeVar("_Scalar", bound=np.generic)


def apply_orientation(picture: npt.NDArray[_Scalar], orientation: int) -> npt.NDArray[_Scalar]:
    """Turn stored pixels upright.

    picture: (H, W) or (H, W, C), as stored. orientation: the EXIF tag, 1 to 8 (TIFF 6.0: on which
    side of the upright picture row 0 and column 0 lie). Returns a C-contiguous array, (W, H) for 5
    to 8; for 1 the array itself if it is contiguous. Raises ValueError for another orientation.
    """
    if orientation not in range(1, 9):
        raise ValueError(f"EXIF orientation {orientation}, expected 1 to 8")
    turned: npt.NDArray[_Scalar] = picture
    if orientation >= 5:
        turned = turned.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


@functools.cache
def srgb_icc_profile() -> bytes:
    """Return an ICC version 4 profile of sRGB (ICC.1:2010), about 500 bytes.

    Its bytes never change. LittleCMS writes the time of the call into the profile that it makes,
    so two results of one photo would differ. The numbers are those of the standard: primaries and
    white of ITU-R BT.709, adapted by Bradford to D50, the white of the profile connection space,
    and the transfer function as a parametric curve.
    """
    adaptation = _bradford(_D65, _D50)
    primaries_d50 = adaptation @ _primaries_to_xyz()
    curve = b"para" + struct.pack(">4xHxx", 3) + _s15f16(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92)
    curve += _s15f16(0.04045)
    tags = {
        b"desc": _text("sRGB"),
        b"cprt": _text("CC0"),
        b"wtpt": _xyz(_D50),
        b"chad": b"sf32" + bytes(4) + _s15f16(*adaptation.ravel()),
        b"rXYZ": _xyz(primaries_d50[:, 0]),
        b"gXYZ": _xyz(primaries_d50[:, 1]),
        b"bXYZ": _xyz(primaries_d50[:, 2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table = struct.pack(">I", len(tags))
    body = b""
    body_offset = 128 + 4 + 12 * len(tags)
    offsets: dict[bytes, int] = {}  # equal contents are stored once
    for signature, content in tags.items():
        if content not in offsets:
            offsets[content] = body_offset + len(body)
            body += content + bytes(-len(content) % 4)
        table += signature + struct.pack(">II", offsets[content], len(content))
    created = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    header = struct.pack(">I4xI", body_offset + len(body), 0x04300000) + b"mntrRGB XYZ " + created
    header += b"acsp" + bytes(28) + _s15f16(*_D50)
    profile = header + bytes(128 - len(header)) + table + body
    profile_id = hashlib.md5(profile, usedforsecurity=False).digest()
    return profile[:84] + profile_id + profile[100:]


_D65 = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
_D50 = np.array([0.9642, 1.0, 0.8249])  # rounded as in ICC.1


def _primaries_to_xyz() -> npt.NDArray[np.float64]:
    """Return the (3, 3) matrix from linear sRGB to XYZ under D65, from the primaries of BT.709."""
    x_y = np.array([[0.64, 0.33], [0.30, 0.60], [0.15, 0.06]])
    xyz = np.stack([x_y[:, 0] / x_y[:, 1], np.ones(3), (1 - x_y.sum(axis=1)) / x_y[:, 1]])
    return np.asarray(xyz * np.linalg.solve(xyz, _D65), np.float64)


def _bradford(white: npt.NDArray[np.float64], to: npt.NDArray[np.float64]) -> Any:
    """Return the (3, 3) Bradford adaptation of XYZ from one white to another (ICC.1 annex E)."""
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    return np.linalg.inv(cone) @ np.diag((cone @ to) / (cone @ white)) @ cone


def _s15f16(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + _s15f16(*values)


def _text(text: str) -> bytes:
    """Return a multiLocalizedUnicode tag with one English record."""
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(encoded), 28) + encoded
