"""The exceptions of the training package.

TrainingError
    DataError      a picture, a depth map or a data set cannot be used
    RecipeError    a recipe, or a checkpoint under it, cannot be used
    OpticsError    no lens and no scene has these values

All of them are ValueErrors too. Files that cannot be written raise OSError.
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of everything that this package raises on purpose."""


class DataError(TrainingError, ValueError):
    """A picture, a depth map or a data set cannot be used."""


class RecipeError(TrainingError, ValueError):
    """A recipe, or a checkpoint under it, cannot be used."""


class OpticsError(TrainingError, ValueError):
    """No lens and no scene has these values."""
