"""The face of networks that restore single pictures: photos without a second view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ldp.devices import choose_device
from ldp.errors import WeightsError
from ldp.models.card import read_card
from ldp.models.network import LDPNet, parameter_count
from ldp.models.vitdeblur_weights import load_vitdeblur
from ldp.models.weights import VITDEBLUR_FORMAT, load_network, read_header, resolve, sha256
from ldp.restore.composite import CompositeRestorer
from ldp.restore.tiling import Progress, ReceiveRows
from ldp.restore.windows import Blending, Padding, WindowRestorer, WindowSettings
from ldp.types import FloatArray, Picture, to_uint16

_Value = TypeVar("_Value", np.float32, np.uint16)


class BandRestorer(Protocol):
    """A network on a device that restores a picture band by band."""

    def restore_bands(
        self, picture: Picture, receive: ReceiveRows, progress: Progress | None = None
    ) -> None:
        """Call receive(first_row, rows) for every band, from the top; again from row 0 where a
        device's memory made it start anew.

        picture: (H, W, 3) uint8, uint16 or float32 RGB, sRGB-encoded.
        progress: progress(done, total) is called after every piece of work.
        """


@dataclass(frozen=True, kw_only=True)
class SingleInfo:
    """Facts about a model of single pictures.

    name: of the weights file, without its suffix; "" for a network in memory.
    network: the kind of network, such as "ViTDeblur".
    licence: of the weights, as their card names it; "" where there is none.
    weights_sha256: of the weights file; "" for a network in memory.
    parameters: trained values that restoring uses.
    settings: how pictures are restored, by the options' names: what changes the result.
    """

    name: str = ""
    network: str = ""
    licence: str = ""
    weights_sha256: str = ""
    parameters: int
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SingleModel:
    """A network of single pictures on a device; `ldp.load_single` makes one of a file."""

    restorer: BandRestorer
    info: SingleInfo

    def restore(self, picture: Picture, *, progress: Progress | None = None) -> FloatArray:
        """Return the sharp picture, (H, W, 3) float32 RGB, sRGB-encoded, white at 1.

        picture: (H, W, 3) RGB, sRGB-encoded: uint8 or uint16 over their whole range, or float32
            with white at 1.
        progress: progress(done, total); both may fall back where a device's memory is too small.

        Raises ValueError for another shape or type, DeviceMemoryError where the device's memory
        does not hold the network, and LdpError where the result is not finite.
        """
        return self._collected(picture, np.dtype(np.float32), lambda rows: rows, progress)

    def restore_uint16(
        self, picture: Picture, *, progress: Progress | None = None
    ) -> npt.NDArray[np.uint16]:
        """Return the same picture clipped to [0, 1] and rounded, 65535 is white.

        It is never in memory as floats. Arguments and errors are those of `restore`.
        """
        return self._collected(picture, np.dtype(np.uint16), to_uint16, progress)

    def _collected(
        self,
        picture: Picture,
        dtype: np.dtype[_Value],
        convert: Callable[[FloatArray], npt.NDArray[_Value]],
        progress: Progress | None,
    ) -> npt.NDArray[_Value]:
        check_picture(picture)
        sharp = np.empty(picture.shape, dtype)

        def receive(first_row: int, rows: FloatArray) -> None:
            sharp[first_row : first_row + len(rows)] = convert(rows)

        self.restorer.restore_bands(picture, receive, progress)
        return sharp


def check_picture(picture: Picture) -> None:
    """Raise ValueError unless it is (H, W, 3) of uint8, uint16 or float32, and has pixels."""
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture is (H, W, 3) RGB, found {picture.shape}")
    if picture.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"a picture is uint8, uint16 or float32, found {picture.dtype}")


def load_single(
    model: str,
    *,
    device: str = "auto",
    tile: int = 0,
    protect: bool = True,
    window_stride: int = 94,
    blending: Blending = "uniform",
    padding: Padding = "published",
    batch: int = 0,
    full_precision: bool = False,
) -> SingleModel:
    """Load a network of single pictures.

    model: the path of a .safetensors file, such as a converted ViTDeblur or one that was trained
        here with `views = 1`, or a shipped network's name (ldp.shipped_names).
    device: auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N.
    tile: for networks that are trained here, side of a tile in pixels, rounded up to what the
        network allows; 0 to choose. protect: keep the picture as it is where they would change it
        by little, see ldp.restore.composite.
    window_stride, blending, padding, batch, full_precision: of ViTDeblur's windows, see
        ldp.restore.windows.WindowSettings.

    Raises WeightsError where the weights cannot be used or are those of a network of two views,
    DeviceError, and ValueError for settings that cannot be.
    """
    path = resolve(model)
    header = read_header(path)
    chosen = choose_device(device)
    if header.format == VITDEBLUR_FORMAT:
        settings = WindowSettings(window_stride, blending, padding, batch, full_precision)
        restorer = WindowRestorer.of(load_vitdeblur(path), chosen, settings)
        return SingleModel(
            restorer, _info(path, "ViTDeblur", parameter_count(restorer.network), restorer.facts)
        )
    if header.views == 1:
        network = load_network(path)
        assert isinstance(network, LDPNet)
        return SingleModel(
            CompositeRestorer.of(network, chosen, tile, protect),
            _info(path, "NAFNet", parameter_count(network), {}),
        )
    raise WeightsError(
        f"{path}: a network of two views ({header.format}), expected one of single pictures; "
        "load it with ldp.load"
    )


def _info(path: Path, network: str, parameters: int, settings: Mapping[str, str]) -> SingleInfo:
    return SingleInfo(
        name=path.stem,
        network=network,
        licence=read_card(path).licence,
        weights_sha256=sha256(path),
        parameters=parameters,
        settings=settings,
    )
