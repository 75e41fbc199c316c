"""The public face of the library: a network with the estimator of its blur map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from ldp.blur.estimator import OPENAI, BlurEstimator, estimated
from ldp.blur.loading import AUTO, estimator_name, load_estimator
from ldp.devices import choose_device
from ldp.errors import WeightsError
from ldp.info import ModelInfo, Source
from ldp.models.card import read_card
from ldp.models.network import LDPNet
from ldp.models.weights import load_network, read_header, resolve, sha256
from ldp.restore.compiled import Compiler, inductor
from ldp.restore.deblur import Deblurrer, Finish, first_that_fits
from ldp.restore.photo_views import OpenPhoto, PhotoViews, as_photo
from ldp.restore.protect import Protection
from ldp.restore.scale_weights import (
    LARGEST_RADIUS_PX,
    ScaleWeights,
    single_scale,
    weights_for,
)
from ldp.restore.tiles import Receive
from ldp.restore.tiling import Progress
from ldp.restore.whole import WholeDeblurrer
from ldp.tensors import Array, own_float, to_tensors, view_pairs
from ldp.types import BlurMap, Deblurred, RoundedDeblurred, TensorDeblurred, ViewPair

if TYPE_CHECKING:
    from ldp.blur.radius import RadiusEstimator
    from ldp.models.weights import PairNetwork

T = TypeVar("T")
SCALES = ("auto", "1", "2", "4", "8")
"""Where to restore: everywhere at the views' own size, at a half, a quarter or an eighth of it, or
every region at the size that suits its blur."""


class Model:
    """A network on a device with the estimator of its blur map; `ldp.load` makes one of a file."""

    def __init__(
        self,
        network: PairNetwork,
        *,
        device: str | torch.device = "auto",
        tile: int = 0,
        estimator: BlurEstimator | None = None,
        scale: str = "1",
        source: Source | None = None,
        protect: bool | None = None,
        whole: bool = False,
    ) -> None:
        """Copy a network that is in memory; the network itself is not changed.

        device, tile, scale, protect, whole: as in `ldp.load`.
        estimator: load_estimator("disparity") if left out.
        source: the part of `info` that the network does not tell.

        Raises DeviceError, ValueError for an unknown scale and for a whole picture at another one.
        """
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r}: expected one of {', '.join(SCALES)}")
        if whole and scale != "1":
            raise ValueError(f"scale {scale!r}: a whole picture is restored at scale 1")
        chosen = device if isinstance(device, torch.device) else choose_device(device)
        self.estimator = estimator if estimator is not None else load_estimator("disparity")
        self._deblurrer = (WholeDeblurrer if whole else Deblurrer).of(network, chosen, tile)
        self._scale = scale
        self._config = network.config
        self._source = source or Source()
        self._protects = isinstance(network, LDPNet) if protect is None else protect

    @property
    def network(self) -> nn.Module:
        """The bare network, in evaluation mode, on the device, with local statistics."""
        return cast(nn.Module, self._deblurrer.network)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._deblurrer.device

    @property
    def tile_px(self) -> int:
        """Side of a tile in pixels, without its halo."""
        return self._deblurrer.tile_px

    @cached_property
    def info(self) -> ModelInfo:
        """Facts about the model; the first use counts the MACs, which takes about a second."""
        from ldp.models.cost import cost_of_config

        cost = cost_of_config(self._config)
        return ModelInfo(**vars(self._source), parameters=cost.parameters, macs=cost.macs)

    @overload
    def restore(
        self, left: Array, right: Array, *, progress: Progress | None = None
    ) -> Deblurred: ...

    @overload
    def restore(
        self, left: Tensor, right: Tensor, *, progress: Progress | None = None
    ) -> TensorDeblurred: ...

    @overload
    def restore(self, left: ViewPair, *, progress: Progress | None = None) -> Deblurred: ...

    @overload
    def restore(
        self,
        left: Sequence[ViewPair] | Sequence[tuple[Array, Array]],
        *,
        progress: Progress | None = None,
    ) -> list[Deblurred]: ...

    @overload
    def restore(
        self, left: Sequence[tuple[Tensor, Tensor]], *, progress: Progress | None = None
    ) -> list[TensorDeblurred]: ...

    def restore(
        self,
        left: Array
        | Tensor
        | ViewPair
        | Sequence[ViewPair]
        | Sequence[tuple[Array, Array]]
        | Sequence[tuple[Tensor, Tensor]],
        right: Array | Tensor | None = None,
        *,
        progress: Progress | None = None,
    ) -> Deblurred | TensorDeblurred | list[Deblurred] | list[TensorDeblurred]:
        """Estimate the blur map of two views and remove the blur.

        left, right: the two views, RGB, sRGB-encoded: arrays (H, W, 3), or tensors (3, H, W) or
            (B, 3, H, W) on any device; uint8 or uint16 over their whole range, or floats with white
            at 1. `left` alone may be a ViewPair, or a list of pairs, of any sizes.
        progress: progress(done, total) is called after every tile of a photo.

        Returns Deblurred for arrays, TensorDeblurred for tensors, a list of these for a list. The
        photos of a batch are restored one after the other, each in tiles.

        Raises ValueError or TypeError for views that do not fit together; SoftMapError,
        DeviceMemoryError and LdpError as ldp.restore.deblur.Deblurrer.restore does.
        """
        if isinstance(left, ViewPair) and right is None:
            return self._restore(left, progress)
        if isinstance(left, Sequence) and right is None:
            return [self._restore_item(item, progress) for item in left]  # type: ignore[return-value]
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            results = [self._restore(views, progress) for views in view_pairs(left, right)]
            return to_tensors(results, like=left)
        if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
            return self._restore(ViewPair(own_float(left), own_float(right)), progress)
        raise TypeError(
            f"left is {type(left).__name__}, right {type(right).__name__}: expected two arrays, "
            "two tensors, a ViewPair, or a list of pairs"
        )

    def restore_uint16(
        self,
        views: ViewPair,
        *,
        blur_map: BlurMap | None = None,
        progress: Progress | None = None,
    ) -> RoundedDeblurred:
        """Return what `restore(views).to_uint16()` gives, without the whole picture as floats.

        A photo of 45 MP takes 0.25 GiB instead of 0.75.

        blur_map: estimated from the views if left out.
        progress: as in `restore`.

        Raises SoftMapError, DeviceMemoryError and LdpError as `restore` does.
        """
        return self.restore_photo(partial(as_photo, views), blur_map=blur_map, progress=progress)

    def restore_photo(
        self,
        photo: OpenPhoto,
        *,
        blur_map: BlurMap | None = None,
        matched: BlurMap | None = None,
        progress: Progress | None = None,
        finish: Finish | None = None,
        also: Receive | None = None,
    ) -> RoundedDeblurred:
        """Restore a photo that is made on the device, as restore_uint16 restores views.

        photo: photo(device) returns its views there. Where a GPU's memory holds neither photo nor
            tiles, it is called again for the CPU.
        matched: of estimator.matching, for views of more pixels than it looks at; else None.
        finish, also: as for ldp.restore.deblur.Deblurrer.restore_uint16.
        """
        sharp, given = self._on_some_device(
            photo,
            lambda views: blur_map or estimated(self.estimator, views, matched),
            lambda x: partial(x.restore_uint16, progress=progress, finish=finish, also=also),
        )
        return RoundedDeblurred(sharp, given)

    def warm_up(self) -> None:
        """Restore one tile of uniform grey.

        PyTorch loads a GPU's libraries and chooses their kernels at the first use, which would
        otherwise be part of the first photo's time.
        """
        grey = np.full((self.tile_px, self.tile_px, 3), 0.5, np.float32)
        self.restore(ViewPair(grey, grey))

    def compile_in_background(self, compiler: Compiler = inductor) -> Callable[[], bool]:
        """Begin to compile the network, for many photos on a GPU; photos before that go on as now.

        See ldp.restore.compiled: what is compiled is kept for the next time, and where compiling
        fails one line in the log says so and the network runs as it is.

        Returns a function that waits for the end and returns whether the network is compiled.
        """
        if isinstance(self._deblurrer, WholeDeblurrer):
            return lambda: False  # pictures of any size; one shape is compiled
        self._deblurrer = self._deblurrer.compiling(compiler)
        compiled = self._deblurrer.compiled
        assert compiled is not None
        return compiled.wait

    def _restore_item(self, item: object, progress: Progress | None) -> Deblurred | TensorDeblurred:
        """Restore one item of a list."""
        if isinstance(item, ViewPair):
            return self._restore(item, progress)
        if isinstance(item, Sequence) and len(item) == 2:
            return self.restore(*item, progress=progress)
        raise TypeError(f"a list holds {type(item).__name__}, expected (left, right) or ViewPair")

    def _restore(self, views: ViewPair, progress: Progress | None) -> Deblurred:
        sharp, blur_map = self._on_some_device(
            partial(as_photo, views),
            self.estimator.estimate,
            lambda deblurrer: partial(deblurrer.restore, progress=progress),
        )
        return Deblurred(sharp, blur_map)

    def _on_some_device(
        self,
        photo: OpenPhoto,
        estimate: Callable[[PhotoViews], BlurMap],
        restore: Callable[[Deblurrer], Callable[..., T]],
    ) -> tuple[T, BlurMap]:
        """Restore on the device, or on the CPU where its memory is too small."""

        def attempt(device: torch.device) -> tuple[T, BlurMap]:
            deblurrer = self._deblurrer.on(device)
            own = photo(device)
            protection = Protection.of(own, device.type) if self._protects else None
            shown = protection.shown if protection else own
            given, weights = self._weighted(shown, estimate(shown))
            kept = protection.kept(given, everywhere=self._scale == AUTO) if protection else None
            return restore(deblurrer)(shown, given, kept=kept, weights=weights), given

        return first_that_fits([self.device, torch.device("cpu")], attempt)

    @cached_property
    def _radius_estimator(self) -> RadiusEstimator:
        from ldp.blur.learned import load_radius_estimator

        return load_radius_estimator(self.device)

    def _weighted(self, views: PhotoViews, given: BlurMap) -> tuple[BlurMap, ScaleWeights | None]:
        """Return the map, with the radius that was found, and which scales to restore at, and
        where; None for the views' own scale everywhere."""
        if self._scale == "1":
            return given, None
        if self._scale != AUTO:
            return given, single_scale(int(self._scale))
        if given.radius_px is None:
            given = self._radius_estimator.estimate(views).beside(given)
        assert given.radius_px is not None
        known_px = self._source.training_radius_px or LARGEST_RADIUS_PX
        largest_px = min(known_px, LARGEST_RADIUS_PX)
        return given, weights_for(given.radius_px, views.size, largest_radius_px=largest_px)


def load(
    model: str,
    *,
    device: str = "auto",
    tile: int = 0,
    blur: str | BlurEstimator = AUTO,
    clip_weights: str = OPENAI,
    protect: bool | None = None,
    scale: str = "1",
    whole: bool = False,
) -> Model:
    """Load a network and the estimator of its blur map.

    model: a shipped network's name (ldp.shipped_names), or the path of a .safetensors file: one
        that was trained here, or the converted release (ldp.models.conversion.convert).
    device: auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N.
    tile: side of a tile in pixels, rounded up to what the network allows; 0 to choose.
    blur: an estimator, or the name of one of ldp.blur.estimator.ESTIMATORS, or auto for the
        one that the network was trained with.
    clip_weights: for the CLIP maps, one of open_clip's tags or a file.
    protect: keep what is in focus as it is and hold the network back in strong noise, see
        ldp.restore.protect; None does so but for networks of others, whose results stay theirs.
    scale: by how much the views are scaled down to restore them, 1, 2, 4 or 8, or auto for the
        scale that suits the blur of each region; see ldp.restore.scales.
    whole: one pass over the whole picture as networks were published, see ldp.restore.whole.

    Raises WeightsError where the weights cannot be used, ValueError for an unknown estimator or
    scale, DeviceError, ClipUnavailableError, and SoftMapError where the network reads the
    unnormalised map and the estimator does not make it.
    """
    path = resolve(model)
    header = read_header(path)
    chosen = choose_device(device)
    if isinstance(blur, str):
        name = estimator_name(blur, header, str(path))
        blur = load_estimator(
            name, device=device, clip_weights=clip_weights, clip_choice=header.clip_choice
        )
    card = read_card(path)
    source = Source(
        name=path.stem,
        training_radius_px=header.training_radius_px or card.training_radius_px,
        licence=card.licence,
        blur_map=header.blur_map,
        weights_sha256=sha256(path),
    )
    network = load_network(path)
    if isinstance(network, LDPNet) and network.config.views == 1:
        raise WeightsError(f"{path}: a network of single pictures; load it with ldp.load_single")
    return Model(
        network,
        device=chosen,
        tile=tile,
        estimator=blur,
        scale=scale,
        source=source,
        protect=protect,
        whole=whole,
    )
