"""The exceptions of the model library.

LdpError
    WeightsError     a weights file is missing, foreign, damaged, or does not fit its network
"""


class LdpError(Exception):
    """Base of everything that ldp raises on purpose."""


class WeightsError(LdpError):
    """A weights file is missing, foreign, damaged, or does not fit its network."""
