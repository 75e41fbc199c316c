"""The exceptions of the model library. Their messages speak of arguments, not of a command line.

LdpError
    WeightsError             a weights file is missing, foreign, damaged or of another network
        UnconvertedError     the file is a PyTorch checkpoint, which has to be converted first
        UnknownModelError    the model is neither a shipped network nor a file
    ClipUnavailableError     open_clip or the weights of a CLIP are not there, or do not fit
    RestormerUnavailableError  deepinv is not installed, of which the network Restormer is
    SoftMapError             the network reads a plane that the blur map does not have
    DeviceError              the device has no such name, or is not in this machine (a ValueError)
    DeviceMemoryError        the memory of the device does not hold the smallest tile
"""

from __future__ import annotations


class LdpError(Exception):
    """Base of everything that ldp raises on purpose."""


class WeightsError(LdpError):
    """A weights file is missing, foreign, damaged, or does not fit its network."""


class UnconvertedError(WeightsError):
    """The file is a PyTorch checkpoint, which ldp.models.conversion.convert can read."""


class UnknownModelError(WeightsError):
    """The model is neither the name of a shipped network nor the path of a file."""


class ClipUnavailableError(LdpError):
    """open_clip is not installed, or the weights of a CLIP cannot be had or do not fit."""


class RestormerUnavailableError(LdpError):
    """The library deepinv, of which the network Restormer is, is not installed."""


class SoftMapError(LdpError):
    """The network reads the unnormalised map of CLIP, and the blur map has none."""


class DeviceError(LdpError, ValueError):
    """The device has no such name, or is not in this machine."""


class DeviceMemoryError(LdpError):
    """The memory of the device does not hold the network and the smallest tile."""
