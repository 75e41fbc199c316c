"""LDP: a language-driven network that removes defocus blur from dual-pixel photos.

    import ldp

    model = ldp.load("tiny", device="cuda")
    result = model.restore(left, right)     # NumPy (H, W, 3), or torch (3, H, W) or (B, 3, H, W)
    result.sharp, result.blur_map           # floats, not clipped
    result.to_uint16()                      # clipped to [0, 1] and rounded, 65535 is white
    model.network, model.info               # the bare nn.Module; parameters, MACs, licence, ...

Importing this package imports neither torch nor NumPy; a name is imported where it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ldp.errors import (
    ClipUnavailableError,
    DeviceError,
    DeviceMemoryError,
    LdpError,
    SoftMapError,
    UnconvertedError,
    WeightsError,
)

if TYPE_CHECKING:
    from ldp.blur.clip_dense import ClipEstimator
    from ldp.blur.clip_patch import ClipPatchEstimator
    from ldp.blur.disparity import DisparityEstimator
    from ldp.blur.estimator import BlurEstimator
    from ldp.blur.loading import load_estimator
    from ldp.info import ModelInfo
    from ldp.model import Model, load
    from ldp.models.weights import shipped_names
    from ldp.single import SingleInfo, SingleModel, load_single
    from ldp.types import BlurMap, Deblurred, TensorBlurMap, TensorDeblurred, ViewPair

__all__ = [
    "BlurEstimator",
    "BlurMap",
    "ClipEstimator",
    "ClipPatchEstimator",
    "ClipUnavailableError",
    "Deblurred",
    "DeviceError",
    "DeviceMemoryError",
    "DisparityEstimator",
    "LdpError",
    "Model",
    "ModelInfo",
    "SingleInfo",
    "SingleModel",
    "SoftMapError",
    "TensorBlurMap",
    "TensorDeblurred",
    "UnconvertedError",
    "ViewPair",
    "WeightsError",
    "load",
    "load_estimator",
    "load_single",
    "shipped_names",
]

_MODULES = {
    "BlurEstimator": "ldp.blur.estimator",
    "BlurMap": "ldp.types",
    "ClipEstimator": "ldp.blur.clip_dense",
    "ClipPatchEstimator": "ldp.blur.clip_patch",
    "Deblurred": "ldp.types",
    "DisparityEstimator": "ldp.blur.disparity",
    "Model": "ldp.model",
    "ModelInfo": "ldp.info",
    "SingleInfo": "ldp.single",
    "SingleModel": "ldp.single",
    "TensorBlurMap": "ldp.types",
    "TensorDeblurred": "ldp.types",
    "ViewPair": "ldp.types",
    "load": "ldp.model",
    "load_estimator": "ldp.blur.loading",
    "load_single": "ldp.single",
    "shipped_names": "ldp.models.weights",
}

if not TYPE_CHECKING:  # or every name would be one of the module's to a type checker

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'ldp' has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
