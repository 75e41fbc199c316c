"""Load a blur map's estimator by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ldp.blur.estimator import (
    ESTIMATORS,
    OPENAI,
    PAPER_CLIP,
    BlurEstimator,
    ClipChoice,
    unstretched,
)
from ldp.errors import SoftMapError, WeightsError

if TYPE_CHECKING:
    from ldp.blur.disparity import DisparityEstimator
    from ldp.models.weights import Header

AUTO = "auto"
"""In the place of an estimator's name: the one that the network was trained with."""


def load_estimator(
    name: str,
    *,
    device: str = "auto",
    clip_weights: str = OPENAI,
    clip_choice: ClipChoice = PAPER_CLIP,
) -> BlurEstimator:
    """Return the estimator of a name.

    name: disparity or learned, whose weights come with the package; clip, of LDP's paper;
        clip-patch, of its released code; clip-patch-stretched, the same as that code hands it on,
        over each photo's own range.
    device: auto, cpu, cuda or cuda:N, for all but disparity, which is found on the CPU.
    clip_weights: see ldp.blur.clip_model.load_clip.
    clip_choice: of `clip` alone.

    Raises ValueError for another name and an unknown choice, DeviceError, ClipUnavailableError.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"blur {name!r}: expected one of {', '.join(ESTIMATORS)}")
    if name == "disparity":
        import torch

        from ldp.blur.disparity import DisparityEstimator
        from ldp.blur.learned import load_radius_estimator

        return DisparityEstimator(radius=load_radius_estimator(torch.device("cpu")))
    from ldp.devices import choose_device

    if name == "learned":
        from ldp.blur.learned import LearnedEstimator

        return LearnedEstimator.load(choose_device(device))
    if name == "clip":
        from ldp.blur.clip_dense import ClipEstimator

        return ClipEstimator.load(choose_device(device), clip_weights, choice=clip_choice)
    from ldp.blur.clip_patch import ClipPatchEstimator

    found = ClipPatchEstimator.load(choose_device(device), clip_weights)
    return replace(found, stretched=name != unstretched(name))


def load_matching(name: str) -> DisparityEstimator | None:
    """Return what matches the views for the estimator of a name; None where it does not match.

    It is what load_estimator(name).matching is, wherever that estimator's networks run.
    """
    from ldp.blur.disparity import DisparityEstimator

    if name == "learned":
        return DisparityEstimator()
    found = load_estimator(name) if name == "disparity" else None
    return found if isinstance(found, DisparityEstimator) else None


def estimator_name(blur: str, header: Header, path: str) -> str:
    """Return the name of the estimator to use with a network.

    blur: a name, or auto for the one that the network was trained with. header: of the network's
    weights in the file `path`.

    Raises WeightsError where the header names no estimator, ValueError for another name,
    SoftMapError where the network reads a plane that the estimator does not make.
    """
    name = header.blur_map if blur == AUTO else blur
    if name not in ESTIMATORS:
        if blur == AUTO:
            raise WeightsError(
                f"{path}: the network was trained with the blur map {name!r}, expected one of "
                f"{', '.join(ESTIMATORS)}; name the estimator to use in `blur`"
            )
        raise ValueError(f"blur {blur!r}: expected one of {', '.join((AUTO, *ESTIMATORS))}")
    if header.needs_soft_map and name != "clip":
        raise SoftMapError(
            f"blur {name!r}: this network reads CLIP's unnormalised map; give it blur 'clip'"
        )
    return name
