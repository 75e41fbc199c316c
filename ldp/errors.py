"""The exceptions of the model library.

LdpError
    WeightsError     a weights file is missing, foreign, damaged, or does not fit its network
    ClipUnavailableError   open_clip or a CLIP's weights are not there, or do not fit
"""

NEEDS_SOFT_MAP = "this network reads CLIP's unnormalised map; use --blur clip"
"""Where another estimator's blur map is to be given to it."""


class LdpError(Exception):
    """Base of everything that ldp raises on purpose."""


class WeightsError(LdpError):
    """A weights file is missing, foreign, damaged, or does not fit its network."""


class ClipUnavailableError(LdpError):
    """open_clip is not installed, or a CLIP's weights cannot be had or do not fit."""
