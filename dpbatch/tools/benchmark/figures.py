"""What the stages of a photo took, and what the machine could do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STAGES = ("load", "develop", "blur map", "network", "rest of restoring", "save")
"""In the order of the report. Load is without develop, and restoring without what stands before it.
"""


@dataclass
class Spent:
    """Wall time and processor time, of all threads of the process."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What one device does at best, measured.

    copy_bytes_s: bytes read and written in a second while memory is copied.
    macs_s: multiply-accumulate operations in a second in a product of large square matrices.
    precision: the type of the products, that in which the network computes here.
    """

    device: str
    copy_bytes_s: float
    macs_s: float
    precision: str


@dataclass(frozen=True)
class StageFigures:
    """Times by stage of the first photo and the medians of later ones.

    floor_s: the least time by stage for one photo of this size; see floor.py.
    """

    cold: Mapping[str, Spent]
    warm: Mapping[str, Spent]
    floor_s: Mapping[str, float]
    machine: Machine
