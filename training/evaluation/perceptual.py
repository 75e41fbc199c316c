"""Measures of perceived quality from optional packages; a missing package leaves its measure out.

LPIPS comes from `lpips` and FSIM from `piq`; MUSIQ and CKDN come from `pyiqa`, whose licence is
non-commercial: install it by hand where you may use it. Pictures are (H, W, 3) float64 RGB, white
at 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.pictures import Float64Picture

Distance = Callable[[Float64Picture, Float64Picture], float]
"""(restored, reference) -> value."""
Quality = Callable[[Float64Picture], float]

NAMES = ("lpips_alex", "lpips_squeeze", "fsim", "musiq", "ckdn")
DEFAULT = ("lpips_alex", "fsim")
"""The others take seconds a picture, and the weights of large networks."""
_PACKAGES = {
    "lpips_alex": "lpips",
    "lpips_squeeze": "lpips",
    "fsim": "piq",
    "musiq": "pyiqa",
    "ckdn": "pyiqa",
}


@dataclass(frozen=True)
class Perceptual:
    """The measures that are taken, None for those that are not.

    lpips_alex, lpips_squeeze: LPIPS with the features of AlexNet, as most papers of the field have
    it, and of SqueezeNet; 0 best, and not to be compared with each other. fsim: in [0, 1], 1 best.
    musiq: of the restored picture alone, 100 best. ckdn: of the restored picture beside the
    degraded one, 1 best.
    """

    lpips_alex: Distance | None = None
    lpips_squeeze: Distance | None = None
    fsim: Distance | None = None
    musiq: Quality | None = None
    ckdn: Distance | None = None


def load_perceptual(names: Sequence[str] = DEFAULT) -> Perceptual:
    """Load measures by name, those whose package is installed.

    Packages download their networks' weights on first use and raise OSError where they cannot.
    """
    return Perceptual(
        lpips_alex=lpips_distance("alex") if "lpips_alex" in names else None,
        lpips_squeeze=lpips_distance("squeeze") if "lpips_squeeze" in names else None,
        fsim=fsim_similarity() if "fsim" in names else None,
        musiq=musiq_quality() if "musiq" in names else None,
        ckdn=ckdn_quality() if "ckdn" in names else None,
    )


def note_of_missing(names: Sequence[str], measures: Perceptual) -> str:
    """Return which of the named measures are not taken and what they need; empty for none."""
    missing = [name for name in names if getattr(measures, name) is None]
    packages = sorted({_PACKAGES[name] for name in missing})
    if not missing:
        return ""
    return f"not measured: {', '.join(missing)}; pip install {' '.join(packages)}"


def lpips_distance(network: str) -> Distance | None:
    """Return LPIPS (Zhang et al., CVPR 2018) by the package `lpips`, None without it."""
    try:
        import lpips
    except ImportError:
        return None

    perceptual = lpips.LPIPS(net=network, verbose=False)

    def distance(restored: Float64Picture, truth: Float64Picture) -> float:
        with torch.inference_mode():
            return float(perceptual(_tensor(restored * 2 - 1), _tensor(truth * 2 - 1)))

    return distance


def fsim_similarity() -> Distance | None:
    """Return FSIM (Zhang et al., IEEE TIP 2011) of luminance by `piq`, None without it."""
    try:
        import piq
    except ImportError:
        return None

    def similarity(restored: Float64Picture, truth: Float64Picture) -> float:
        pictures = (_tensor(np.clip(picture, 0, 1)) for picture in (restored, truth))
        with torch.inference_mode():
            return float(piq.fsim(*pictures, data_range=1.0, chromatic=False))

    return similarity


def musiq_quality() -> Quality | None:
    """Return MUSIQ (Ke et al., ICCV 2021) by the package `pyiqa`, None without it."""
    metric = _pyiqa_metric("musiq")
    if metric is None:
        return None
    return lambda restored: metric(_tensor(np.clip(restored, 0, 1)))


def ckdn_quality() -> Distance | None:
    """Return CKDN (Zheng et al., CVPR 2021) by the package `pyiqa`, None without it."""
    metric = _pyiqa_metric("ckdn")
    if metric is None:
        return None
    return lambda restored, degraded: metric(
        _tensor(np.clip(restored, 0, 1)), _tensor(np.clip(degraded, 0, 1))
    )


def _pyiqa_metric(name: str) -> Callable[..., float] | None:
    try:
        import pyiqa
    except ImportError:
        return None
    metric = pyiqa.create_metric(name)

    def measured(*pictures: Tensor) -> float:
        with torch.inference_mode():
            return float(metric(*pictures))

    return measured


def _tensor(picture: Float64Picture) -> Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32))
