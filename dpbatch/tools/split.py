"""Write the two views of a dual-pixel raw as files, for other programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch import photo
from dpbatch.batch.photo_stages import (
    Stamped,
    is_made_from,
    opens,
    processing_note,
    saved,
    stamped,
)
from dpbatch.photo import LoadedPhoto
from dpbatch.settings import OutputSettings, Settings, earlier_fingerprints, fingerprint
from dpbatch.types import FileStamp, Job, Photo, Progress, Saved

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ldp.types import Picture


@dataclass(frozen=True)
class SplitStages:
    """Stages that write NAME_L.tif and NAME_R.tif. The second stage does nothing."""

    settings: Settings

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the outputs; the right view is written last."""
        return ("_R.tif", "_L.tif")

    @property
    def fingerprint(self) -> str:
        """See `BatchStages`."""
        return fingerprint(self._relevant, "split")

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """See `BatchStages`."""
        return earlier_fingerprints(self._relevant, "split")

    @property
    def _relevant(self) -> Settings:
        """The settings without those of the look, which views do not have."""
        output = replace(self.settings.output, look=OutputSettings.look, exposure=0.0)
        return replace(self.settings, output=output)

    def load(self, job: Job) -> Stamped[LoadedPhoto]:
        """Load the views as 16 bits."""
        return stamped(job.photo, self._load_16_bit)

    def _load_16_bit(self, files: Photo) -> LoadedPhoto:
        loaded = photo.load(files, self.settings.raw)
        views = loaded.views
        left, right = to_16_bit(views.left), to_16_bit(views.right)
        return replace(loaded, views=replace(views, left=left, right=right))

    def restorer(self) -> Callable[[Stamped[LoadedPhoto], Progress], Stamped[LoadedPhoto]]:
        """Return a step that does nothing."""
        return _unchanged

    def save(self, job: Job, loaded: Stamped[LoadedPhoto]) -> Saved:
        """Write both views in the sensor's orientation, with the tag that turns them upright.

        The views differ along the sensor's rows, and a program that reads them relies on that.
        """
        from dpbatch.output.images import write_picture

        note = processing_note(job.photo, self.settings, loaded.inputs, self.fingerprint)
        views = loaded.value.views
        output = replace(self.settings.output, format="tif")  # as the suffixes
        written = {}
        right_target, left_target = job.outputs
        for target, view in ((left_target, views.left), (right_target, views.right)):
            pixels, metadata = to_16_bit(view), loaded.value.metadata
            written[target] = write_picture(
                target, pixels, output, metadata, note, orientation=views.orientation
            )
        return saved(job, loaded.inputs, written, loaded.value.warnings)

    def opens(self, path: Path) -> bool:
        """See `BatchStages`."""
        return opens(path)

    def made(self, path: Path, inputs: Sequence[FileStamp]) -> bool:
        """See `BatchStages`."""
        return is_made_from(path, inputs, self.fingerprint)


def to_16_bit(view: Picture) -> npt.NDArray[np.uint16]:
    """Return a view as uint16, 65535 is white, clipped to [0, 1]."""
    import numpy as np

    if view.dtype == np.uint16:
        return view  # type: ignore[return-value]
    if view.dtype == np.uint8:
        return view.astype(np.uint16) * np.uint16(257)
    levels = np.empty(view.shape, np.uint16)
    for row in range(len(view)):  # a float copy of a 45 MP view takes half a gigabyte
        np.rint(np.clip(view[row], 0, 1) * np.float32(65535), out=levels[row], casting="unsafe")
    return levels


def _unchanged(loaded: Stamped[LoadedPhoto], progress: Progress) -> Stamped[LoadedPhoto]:
    return loaded
