"""The protocols under which the DPDD data set's papers publish their figures.

They differ in the third digit: in whether the result is clipped to [0, 1], and whether it and the
truth are rounded to 8 bit. All score each whole picture, borders included, and then average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import ldp
from ldp import ViewPair
from ldp.blur.estimator import OPENAI
from ldp.blur.loading import AUTO
from ldp.models.weights import read_header, resolve
from ldp.restore.windows import WindowSettings
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray, as_float
from training.evaluation.metrics import exposure_fitted, mae, psnr_db, rmse, ssim
from training.evaluation.perceptual import NAMES, Perceptual
from training.pictures import Float64Picture

NOT_MEASURED = Perceptual()
Restore = Callable[[ViewPair], npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Protocol:
    """How a result and the truth are compared.

    clips: both are clipped to [0, 1]. levels: both are rounded to this many steps, 0 for none.
    """

    clips: bool
    levels: int

    def prepared(self, picture: Float64Picture) -> Float64Picture:
        """Return a result, or the truth, as it is compared."""
        if self.clips:
            picture = np.clip(picture, 0, 1)
        return np.rint(picture * self.levels) / self.levels if self.levels else picture


PROTOCOLS = {
    "restormer": Protocol(clips=True, levels=0),
    "8bit": Protocol(clips=True, levels=255),
    "dpdnet": Protocol(clips=False, levels=0),
}
"""restormer: the usual one, 16-bit files, clipped (Zamir et al., CVPR 2022). 8bit: both as 8-bit
pictures. dpdnet: float64 as it is (Abuolaim and Brown, ECCV 2020); since a result is
clipped and rounded to 16 bit as in a file, its figures agree with restormer's."""


@dataclass(frozen=True)
class PictureScores:
    """How close one picture is to the true one.

    fitted_psnr_db: after each channel's exposure is fitted, see metrics.exposure_fitted.
    rmse: 10^(-PSNR / 20), the MSE_rel of the papers; of an average, that of the average PSNR, as in
    their tables. The others: None where not measured, see perceptual.Perceptual.
    """

    psnr_db: float
    fitted_psnr_db: float
    ssim: float
    mae: float
    rmse: float
    lpips_alex: float | None = None
    lpips_squeeze: float | None = None
    fsim: float | None = None
    musiq: float | None = None
    ckdn: float | None = None


def picture_scores(
    picture: Float64Picture,
    truth: Float64Picture,
    mean_view: Float64Picture,
    protocol: Protocol,
    perceptual: Perceptual = NOT_MEASURED,
) -> PictureScores:
    """Score a picture under a protocol; all three are (H, W, 3) RGB, white at 1."""
    found, wanted, before = (protocol.prepared(p) for p in (picture, truth, mean_view))
    return PictureScores(
        psnr_db=psnr_db(found, wanted),
        fitted_psnr_db=psnr_db(exposure_fitted(found, wanted), wanted),
        ssim=ssim(found, wanted),
        mae=mae(found, wanted),
        rmse=rmse(found, wanted),
        lpips_alex=perceptual.lpips_alex(found, wanted) if perceptual.lpips_alex else None,
        lpips_squeeze=perceptual.lpips_squeeze(found, wanted) if perceptual.lpips_squeeze else None,
        fsim=perceptual.fsim(found, wanted) if perceptual.fsim else None,
        musiq=perceptual.musiq(found) if perceptual.musiq else None,
        ckdn=perceptual.ckdn(found, before) if perceptual.ckdn else None,
    )


def mean_scores(scores: Sequence[PictureScores]) -> PictureScores:
    """Return the average of at least one picture's scores."""
    psnr = float(np.mean([s.psnr_db for s in scores]))
    optional = {name: [getattr(s, name) for s in scores] for name in NAMES}
    return PictureScores(
        psnr_db=psnr,
        fitted_psnr_db=float(np.mean([s.fitted_psnr_db for s in scores])),
        ssim=float(np.mean([s.ssim for s in scores])),
        mae=float(np.mean([s.mae for s in scores])),
        rmse=10 ** (-psnr / 20),
        **{
            name: None if None in values else float(np.mean(values))
            for name, values in optional.items()
        },
    )


def load_restorer(
    model: str,
    device: str = "auto",
    tile: int = 0,
    windows: WindowSettings | None = None,
    *,
    blur: str = AUTO,
    clip_weights: str = OPENAI,
    whole: bool = False,
    protect: bool = True,
) -> Restore:
    """Return what `dpbatch run --scale 1` does with two views: own blur map, tiles, 16 bit.

    A network of single pictures is given the mean of the two views, which is the composite photo.

    model: a shipped network's name or a .safetensors path.
    windows: how ViTDeblur cuts a picture. blur, clip_weights, whole: of a network of two views, as
        in ldp.load. protect: as `dpbatch run` does; False keeps every change of the network.

    Raises WeightsError, ClipUnavailableError, ValueError for an impossible device or setting.
    """
    if read_header(resolve(model)).views == 1:
        chosen = windows or WindowSettings()
        single = ldp.load_single(
            model,
            device=device,
            tile=tile,
            protect=protect,
            window_stride=chosen.stride_px,
            blending=chosen.blending,
            padding=chosen.padding,
        )
        return lambda views: single.restore_uint16(composite(views))
    loaded = ldp.load(
        model,
        device=device,
        tile=tile,
        blur=blur,
        clip_weights=clip_weights,
        whole=whole,
        protect=None if protect else False,
    )
    return lambda views: loaded.restore_uint16(views).sharp


def composite(views: ViewPair) -> FloatArray:
    """Return what a camera makes of two views, the mean of their light: (H, W, 3) float32.

    One picture given twice is that picture.
    """
    if views.left is views.right:
        return as_float(views.left)
    left, right = (decode_srgb(np.array(as_float(view))) for view in (views.left, views.right))
    return encode_srgb((left + right) * np.float32(0.5))
