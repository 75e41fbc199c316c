"""The colour spaces that results are written in, and their ICC profiles."""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray

Matrix = npt.NDArray[np.float64]
Point = tuple[float, float]

_D65: Point = (0.3127, 0.3290)
_D50: Point = (0.3457, 0.3585)
_CONNECTION_WHITE = np.array([0.9642, 1.0, 0.8249])  # D50, rounded as in ICC.1


@dataclass(frozen=True)
class Curve:
    """A transfer function: encoded values e stand for the light (a e + b)^gamma from `from_` on,
    and for slope * e below."""

    gamma: float
    a: float = 1.0
    b: float = 0.0
    slope: float = 0.0
    from_: float = 0.0

    def encode(self, light: FloatArray) -> FloatArray:
        """Return the encoded values of light in [0, 1], of any shape, as a new array."""
        encoded = np.power(light, np.float32(1 / self.gamma))
        encoded -= np.float32(self.b)
        encoded /= np.float32(self.a)
        if self.slope:
            low = light < np.float32(self.slope * self.from_)
            np.divide(light, np.float32(self.slope), out=encoded, where=low)
        return encoded

    def icc(self) -> bytes:
        """Return the curve as a parametricCurveType of ICC.1."""
        if not self.slope:
            return b"para" + bytes(8) + _s15f16(self.gamma)
        values = (self.gamma, self.a, self.b, self.slope, self.from_)
        return b"para" + struct.pack(">4xHxx", 3) + _s15f16(*values)


@dataclass(frozen=True)
class ColorSpace:
    """Primaries, white and transfer function. title: the name in the profile."""

    title: str
    red: Point
    green: Point
    blue: Point
    white: Point
    curve: Curve

    @property
    def to_xyz(self) -> Matrix:
        """(3, 3) from linear light to XYZ under this space's own white."""
        xyz = np.stack([_xyz(point) for point in (self.red, self.green, self.blue)], axis=1)
        return np.asarray(xyz * np.linalg.solve(xyz, _xyz(self.white)), np.float64)


_SRGB_CURVE = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_REC2020_CURVE = Curve(1 / 0.45, 1 / 1.0993, 0.0993 / 1.0993, 1 / 4.5, 0.0812429)
_ROMM = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), _D50)

SPACES = {
    # IEC 61966-2-1
    "srgb": ColorSpace("sRGB", (0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65, _SRGB_CURVE),
    # SMPTE EG 432-1 primaries with the curve of sRGB
    "display-p3": ColorSpace(
        "Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65, _SRGB_CURVE
    ),
    # Adobe RGB (1998)
    "adobe-rgb": ColorSpace(
        "Adobe RGB (1998) compatible",
        (0.64, 0.33),
        (0.21, 0.71),
        (0.15, 0.06),
        _D65,
        Curve(563 / 256),
    ),
    # ISO 22028-2 (ROMM RGB)
    "prophoto": ColorSpace("ProPhoto RGB", *_ROMM, Curve(1.8, 1.0, 0.0, 1 / 16, 1 / 32)),
    # ITU-R BT.2020
    "rec2020": ColorSpace(
        "Rec. 2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65, _REC2020_CURVE
    ),
    "linear": ColorSpace("ProPhoto RGB, linear", *_ROMM, Curve(1.0)),
}
"""The spaces by the name of their setting."""


@functools.cache
def from_linear_srgb(name: str) -> Matrix:
    """Return the (3, 3) matrix from linear sRGB to linear light in a space; white stays white."""
    space, srgb = SPACES[name], SPACES["srgb"]
    adaptation = _bradford(_xyz(srgb.white), _xyz(space.white))
    return np.asarray(np.linalg.solve(space.to_xyz, adaptation @ srgb.to_xyz), np.float64)


@functools.cache
def icc_profile(name: str) -> bytes:
    """Return an ICC version 4 profile (ICC.1:2010) of a space, about 500 bytes.

    Its bytes never change. LittleCMS writes the time of the call into the profile that it makes,
    so two results of one photo would differ. The primaries are adapted by Bradford to D50, the
    white of the profile connection space.
    """
    space = SPACES[name]
    adaptation = _bradford(_xyz(space.white), _CONNECTION_WHITE)
    primaries = adaptation @ space.to_xyz
    curve = space.curve.icc()
    tags = {
        b"desc": _text(space.title),
        b"cprt": _text("CC0"),
        b"wtpt": _xyz_tag(_CONNECTION_WHITE),
        b"chad": b"sf32" + bytes(4) + _s15f16(*adaptation.ravel()),
        b"rXYZ": _xyz_tag(primaries[:, 0]),
        b"gXYZ": _xyz_tag(primaries[:, 1]),
        b"bXYZ": _xyz_tag(primaries[:, 2]),
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
    header += b"acsp" + bytes(28) + _s15f16(*_CONNECTION_WHITE)
    profile = header + bytes(128 - len(header)) + table + body
    profile_id = hashlib.md5(profile, usedforsecurity=False).digest()
    return profile[:84] + profile_id + profile[100:]


def _xyz(point: Point) -> Matrix:
    """Return XYZ of a chromaticity (x, y), Y 1."""
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _bradford(white: Matrix, to: Matrix) -> Matrix:
    """Return the (3, 3) Bradford adaptation of XYZ from one white to another (ICC.1 annex E)."""
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    scaled = np.diag((cone @ to) / (cone @ white)) @ cone
    return np.asarray(np.linalg.inv(cone) @ scaled, np.float64)


def _s15f16(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _xyz_tag(values: Matrix) -> bytes:
    return b"XYZ " + bytes(4) + _s15f16(*values)


def _text(text: str) -> bytes:
    """Return a multiLocalizedUnicode tag with one English record."""
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(encoded), 28) + encoded
