"""Read Dual Pixel RAW files with LibRaw.

LibRaw writes warnings about damaged files to the C library's stderr. That stream belongs to the
whole process, so it is not redirected here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy

from dpbatch.errors import DamagedError, NotDualPixelError, UnreadableError
from dpbatch.raw.canon_tags import read_canon_tags, single_frame_message
from dpbatch.raw.checks import Area, Cfa
from dpbatch.raw.container import probe
from dpbatch.raw.frames import Frame, RawPair, pair_of


def read_dual(path: Path, *, with_preview: bool = False) -> RawPair:
    """Decode both frames of a Dual Pixel RAW file and check that they belong together.

    Raises NotDualPixelError for an ordinary raw; UnreadableError for a file that is missing, empty,
    not permitted or no Canon raw; DamagedError where it does not decode or the frames cannot be a
    composite and one of its photodiodes.
    """
    container = probe(path)
    if not container.is_dual_pixel:
        raise NotDualPixelError(single_frame_message(path, container))
    tags = read_canon_tags(path, container.format)
    with ExitStack() as opened:
        # LibRaw releases the interpreter's lock while it decodes.
        with ThreadPoolExecutor(2) as threads:
            composite = threads.submit(_read_frame, opened, path, 0, with_preview)
            photodiode = threads.submit(_read_frame, opened, path, 1, False)
            second = photodiode.result()
            first = composite.result()
        return pair_of(first, second, path.name, container, tags)


def _read_frame(opened: ExitStack, path: Path, shot: int, with_preview: bool) -> Frame:
    """Decode a frame. opened: keeps the memory of its mosaic, which is LibRaw's."""
    raw, preview = opened.enter_context(_decoded(path, shot, with_preview))
    sizes = raw.sizes
    visible = (sizes.top_margin, sizes.left_margin, sizes.height, sizes.width)
    top, left, height, width = active = _active_area(sizes, visible)
    mosaic = raw.raw_image
    return Frame(
        mosaic=mosaic,
        picture=mosaic[top : top + height, left : left + width].copy(),
        cfa=_cfa_of_mosaic(raw, visible),
        black=np.array(raw.black_level_per_channel, np.float64),
        white_level=int(raw.white_level),
        visible=visible,
        active=active,
        camera_wb=_camera_wb(raw),
        daylight_wb=_four(np.array(raw.daylight_whitebalance, np.float64)),
        xyz_to_camera=np.array(raw.rgb_xyz_matrix[:3], np.float64),
        flip=sizes.flip,
        preview=preview,
    )


@contextmanager
def composite_in_libraw(path: Path) -> Iterator[Callable[[], npt.NDArray[np.float32]]]:
    """Open a raw file's first frame in LibRaw, to compare with; yields a function that develops it.

    It returns the active area, (h, w, 3), linear light, sRGB primaries, white at 1, demosaiced by
    AHD, as shot; what lies below black is 0.
    """
    with _decoded(path, 0) as (raw, _):

        def develop() -> npt.NDArray[np.float32]:
            picture = raw.postprocess(
                demosaic_algorithm=rawpy.DemosaicAlgorithm.AHD,
                user_wb=_camera_wb(raw).tolist(),
                no_auto_bright=True,
                adjust_maximum_thr=0.0,
                gamma=(1, 1),
                output_bps=16,
                user_flip=0,
            )
            sizes = raw.sizes
            margins = (sizes.top_margin, sizes.left_margin)
            top, left, height, width = _active_area(sizes, (*margins, sizes.height, sizes.width))
            top, left = top - margins[0], left - margins[1]
            area = picture[top : top + height, left : left + width]
            return area.astype(np.float32) / np.float32(65535)

        yield develop


def largest_preview(raw: rawpy.RawPy) -> bytes:
    """Return the largest JPEG that the camera stored in the file, b"" without one."""
    try:
        preview = raw.extract_thumb()
    except rawpy.LibRawError:
        return b""
    return bytes(preview.data) if preview.format == rawpy.ThumbFormat.JPEG else b""


@contextmanager
def _decoded(
    path: Path, shot: int, with_preview: bool = False
) -> Iterator[tuple[rawpy.RawPy, bytes]]:
    """Open the raw file and unpack one of its frames; yields it with its preview, or with b"".

    LibRaw selects the frame while it opens the file, so shot_select is set before that.
    `rawpy.imread(shot_select=1)` sets it afterwards and returns frame 0.
    """
    raw = rawpy.RawPy()
    try:
        raw.set_unpack_params(shot_select=shot)
        try:
            _open(raw, path)
            # Of a buffer rawpy has the preview before it unpacks; afterwards the process dies.
            preview = largest_preview(raw) if with_preview else b""
            raw.unpack()
        except rawpy.LibRawRequestForNonexistentImageError as error:
            raise DamagedError(
                f"{path.name}: the file lists two raw frames, LibRaw finds one of the larger "
                "size, expected two of one size"
            ) from error
        except rawpy.LibRawUnsufficientMemoryError as error:
            raise UnreadableError(
                f"{path.name}: not enough memory to decode raw frame {shot}"
            ) from error
        except rawpy.LibRawError as error:
            raise DamagedError(
                f"{path.name}: raw frame {shot} does not decode ({reason_of(error)}); "
                "copy the file from the card again"
            ) from error
        if raw.raw_type != rawpy.RawType.Flat or raw.raw_pattern is None:
            raise DamagedError(f"{path.name}: raw frame {shot} is not a Bayer mosaic")
        yield raw, preview
    finally:
        raw.close()


def _open(raw: rawpy.RawPy, path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # rawpy takes no other name
        with path.open("rb") as stream:
            raw.open_buffer(stream)
    else:
        raw.open_file(str(path))


def reason_of(error: rawpy.LibRawError) -> str:
    """Return LibRaw's own words for an error."""
    text = error.args[0] if error.args else type(error).__name__
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _cfa_of_mosaic(raw: rawpy.RawPy, visible: Area) -> Cfa:
    """Return the 2x2 pattern from the mosaic's origin; LibRaw's starts at the visible area."""
    pattern = np.asarray(raw.raw_pattern, np.int8)
    return np.roll(pattern, (visible[0] % 2, visible[1] % 2), axis=(0, 1))


def _active_area(sizes: rawpy.ImageSizes, visible: Area) -> Area:
    """Return Canon's crop of the visible area in whole 2x2 cells; all of it without a crop."""
    top, left, height, width = visible
    bottom, right = top + height, left + width
    if sizes.crop_width and sizes.crop_height:
        bottom = min(bottom, sizes.crop_top_margin + sizes.crop_height)
        right = min(right, sizes.crop_left_margin + sizes.crop_width)
        top, left = max(top, sizes.crop_top_margin), max(left, sizes.crop_left_margin)
    return top, left, (bottom - top) // 2 * 2, (right - left) // 2 * 2


def _camera_wb(raw: rawpy.RawPy) -> npt.NDArray[np.float64]:
    """Return the as-shot gains per colour index; LibRaw's daylight gains where there are none."""
    gains = np.array(raw.camera_whitebalance, np.float64)
    if not (gains[:3] > 0).all():
        gains = np.array(raw.daylight_whitebalance, np.float64)
    return _four(gains)


def _four(gains: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return gains whose second green is the first one's if it has none."""
    if gains[3] <= 0:
        gains[3] = gains[1]
    return gains
