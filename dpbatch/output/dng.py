"""Write a restored photo as a raw file that editors go on with: a DNG, mosaiced or linear.

The first directory holds the preview and what describes the photo, a second one below it the raw
pixels, as lossless JPEG (ITU-T T.81 process 14) in tiles, a third one a depth map, if there is one.
A row of a mosaic is stored as pairs of two components, as Adobe's converter does: neighbours of one
colour then predict each other.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from dpbatch.output.atomic import atomic_file
from dpbatch.output.deflate import in_threads
from dpbatch.output.dng_tags import CameraColor, RawLevels, Tag, cfa_tags
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written, write_with_metadata

Raw = npt.NDArray[np.uint16]

_TILE_PX = 256
_CFA, _LINEAR_RAW, _DEPTH = 32803, 34892, 51177
_JPEG = 7
_FULL_SIZE, _PREVIEW, _DEPTH_MAP = 0, 1, 8
_PREVIEW_QUALITY = 90
_LONG = 4


def encode_mosaic_dng(
    mosaic: Raw,
    pattern: tuple[int, int, int, int],
    levels: RawLevels,
    color: CameraColor,
    preview: npt.NDArray[np.uint8],
    depth: Raw | None = None,
) -> bytes:
    """Return a DNG of a colour filter array.

    mosaic: (H, W) uint16, as the camera stores it, masked borders included; W even.
    pattern: see `cfa_tags`.
    preview: (h, w, 3) sRGB, in the orientation of the mosaic.
    depth: (h, w) of the active area, of any size, even steps of inverse depth, 0 the nearest;
        RawTherapee and darktable misread a file in which it is as large as the raw.
    """
    return _encode(mosaic, _CFA, [*cfa_tags(pattern), *levels.tags()], color, preview, depth)


def encode_linear_dng(
    camera_rgb: Raw,
    levels: RawLevels,
    color: CameraColor,
    preview: npt.NDArray[np.uint8],
    depth: Raw | None = None,
) -> bytes:
    """Return a DNG of a demosaiced picture.

    camera_rgb: (H, W, 3) uint16, linear light in the camera's own colours, without white balance.
    preview, depth: as for a mosaic.
    """
    return _encode(camera_rgb, _LINEAR_RAW, levels.tags(), color, preview, depth)


def write_dng(
    target: Path,
    encoded: bytes,
    size: tuple[int, int],
    orientation: int,
    metadata: PhotoMetadata,
    note: ProcessingNote,
) -> Written:
    """Write an encoded DNG to `target`, with the camera's metadata.

    size: (height, width) of the picture as it is stored; orientation: the EXIF tag that turns it
    upright. Raises OutputError or DiskFullError and then leaves `target` as it was.
    """
    height, width = size
    with atomic_file(target) as temporary:
        return write_with_metadata(
            temporary, encoded, metadata, note, width=width, height=height, orientation=orientation
        )


def _encode(
    raw: Raw,
    photometric: int,
    raw_tags: list[Tag],
    color: CameraColor,
    preview: npt.NDArray[np.uint8],
    depth: Raw | None,
) -> bytes:
    file = io.BytesIO()
    jpeg = imagecodecs.jpeg8_encode(preview, level=_PREVIEW_QUALITY, subsampling="420")
    with tifffile.TiffWriter(file) as writer:
        writer.write(
            iter([bytes(jpeg)]),
            shape=preview.shape,
            dtype=np.uint8,
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            rowsperstrip=len(preview),  # one strip is a whole JPEG
            subfiletype=_PREVIEW,
            extratags=color.tags(with_depth=depth is not None),
            subifds=1 if depth is None else 2,
            metadata=None,
            software=False,
        )
        _write_tiles(writer, raw, photometric, _FULL_SIZE, raw_tags)
        if depth is not None:  # behind the raw: darktable takes the first one for the picture
            _write_tiles(writer, depth, _DEPTH, _DEPTH_MAP, [])
    _complete(file)
    return file.getvalue()


def _write_tiles(
    writer: tifffile.TiffWriter, pixels: Raw, photometric: int, kind: int, tags: list[Tag]
) -> None:
    """Write a directory of pixels as lossless JPEG."""
    writer.write(
        _lossless_tiles(pixels, in_pairs=photometric == _CFA),
        shape=pixels.shape,
        dtype=np.uint16,
        photometric=photometric,
        compression=_JPEG,
        tile=(_TILE_PX, _tile_width(pixels.shape[1])),
        subfiletype=kind,
        extratags=tags,
        metadata=None,
        software=False,
    )


def _lossless_tiles(raw: Raw, *, in_pairs: bool) -> Iterator[bytes]:
    """Yield the tiles, row by row. in_pairs: two samples of a row are two components."""
    tops, width = range(0, raw.shape[0], _TILE_PX), _tile_width(raw.shape[1])
    places = [(top, left) for top in tops for left in range(0, raw.shape[1], width)]
    yield from in_threads(lambda place: _lossless_tile(raw, place, width, in_pairs), places)


def _lossless_tile(raw: Raw, place: tuple[int, int], width: int, in_pairs: bool) -> bytes:
    """Return a tile; one at the far edges is filled up with the picture, mirrored."""
    top, left = place
    tile = raw[top : top + _TILE_PX, left : left + width]
    below, beside = _TILE_PX - tile.shape[0], width - tile.shape[1]
    if below or beside:
        # Mirrored about the last sample, so that the colours of a mosaic alternate on.
        padded = cv2.copyMakeBorder(tile, 0, below, 0, beside, cv2.BORDER_REFLECT_101)
        tile = np.asarray(padded, np.uint16)
    if in_pairs:
        tile = tile.reshape(_TILE_PX, width // 2, 2)
    return bytes(
        imagecodecs.jpeg_encode(
            np.ascontiguousarray(tile),
            lossless=True,
            bitspersample=16,
            colorspace="unknown",
            outcolorspace="unknown",
        )
    )


def _tile_width(width: int) -> int:
    """Return the width of a tile: LibRaw garbles one that is wider than the picture."""
    return min(_TILE_PX, max(16, width // 16 * 16))


def _complete(file: io.BytesIO) -> None:
    """Correct what tifffile writes otherwise than DNG has it, in place.

    It says 12 bits of every JPEG, from which RawTherapee takes a wrong white level; and it links
    the directories below the first one by a tag of the type IFD, where DNG has LONG.
    """
    file.seek(0)
    with tifffile.TiffFile(file, mode="r+") as tiff:
        first = tiff.pages.first
        for page in first.pages or ():
            tags = page.aspage().tags
            tags["BitsPerSample"].overwrite((16,) * tags["SamplesPerPixel"].value)
        links = first.aspage().tags["SubIFDs"]
        links.overwrite(links.value, dtype=_LONG)
