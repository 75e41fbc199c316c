"""Load a blur map's estimator by its name."""

from __future__ import annotations

from ldp.blur.estimator import ESTIMATORS, OPENAI, BlurEstimator


def load_estimator(name: str, *, device: str = "auto", clip_weights: str = OPENAI) -> BlurEstimator:
    """Return the estimator of a name.

    name: disparity, which needs no weights; learned, whose weights come with the package; clip, of
        LDP's paper; clip-patch, of its released code.
    device: auto, cpu, cuda or cuda:N, for all but disparity.
    clip_weights: see ldp.blur.clip_model.load_clip.

    Raises ValueError for another name, DeviceError, ClipUnavailableError.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"blur {name!r}: expected one of {', '.join(ESTIMATORS)}")
    if name == "disparity":
        from ldp.blur.disparity import DisparityEstimator

        return DisparityEstimator()
    from ldp.devices import choose_device

    if name == "learned":
        from ldp.blur.learned import LearnedEstimator

        return LearnedEstimator.load(choose_device(device))
    if name == "clip":
        from ldp.blur.clip_dense import ClipEstimator

        return ClipEstimator.load(choose_device(device), clip_weights)
    from ldp.blur.clip_patch import ClipPatchEstimator

    return ClipPatchEstimator.load(choose_device(device), clip_weights)
