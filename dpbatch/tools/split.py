"""Write the two views of a dual-pixel raw as files, for other programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch import photo
from dpbatch.batch.made import is_made_from, opens, processing_note
from dpbatch.batch.photo_stages import Stamped, saved, stamped
from dpbatch.fingerprints import earlier_fingerprints, fingerprint
from dpbatch.photo import LoadedPhoto
from dpbatch.settings import OutputSettings, Settings
from dpbatch.types import FileStamp, Job, Progress, Saved

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpbatch.output.metadata import PhotoMetadata
    from ldp.types import Picture


@dataclass(frozen=True)
class SplitPhoto:
    """left, right: (H, W, 3) uint16, in the sensor's orientation.

    orientation: the EXIF orientation that turns them upright.
    """

    left: npt.NDArray[np.uint16]
    right: npt.NDArray[np.uint16]
    orientation: int
    metadata: PhotoMetadata
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitStages:
    """Stages that write NAME_L.tif and NAME_R.tif. The second stage develops them."""

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
    def ordinary_fingerprint(self) -> str:
        """Ordinary photos have no views to split."""
        return ""

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """See `BatchStages`."""
        return earlier_fingerprints(self._relevant, "split")

    @property
    def _relevant(self) -> Settings:
        """The settings without those of the look and of restoring, which views do not have."""
        output = replace(
            self.settings.output,
            look=OutputSettings.look,
            exposure=0.0,
            dng=OutputSettings.dng,
            color_space="srgb",
            highlights=OutputSettings.highlights,
        )
        restore = replace(self.settings.restore, scale="1")
        return replace(self.settings, output=output, restore=restore)

    def load(self, job: Job) -> Stamped[LoadedPhoto]:
        """See `photo.load`."""
        return stamped(job.photo, lambda files: photo.load(files, self.settings.raw))

    def restorer(self) -> Callable[[Stamped[LoadedPhoto], Progress], Stamped[SplitPhoto]]:
        """Return the step that develops both views, as 16 bits."""
        return self._split

    def _split(self, loaded: Stamped[LoadedPhoto], progress: Progress) -> Stamped[SplitPhoto]:
        views = photo.developed(loaded.value, self.settings.raw)
        left, right = to_16_bit(views.left), to_16_bit(views.right)
        value = SplitPhoto(left, right, views.orientation, loaded.value.metadata)
        return Stamped(replace(value, warnings=loaded.value.warnings), loaded.inputs)

    def save(self, job: Job, split: Stamped[SplitPhoto]) -> Saved:
        """Write both views in the sensor's orientation, with the tag that turns them upright.

        The views differ along the sensor's rows, and a program that reads them relies on that.
        """
        from dpbatch.output.images import write_picture

        note = processing_note(job.photo, self.settings, split.inputs, self.fingerprint)
        views = split.value
        output = replace(self.settings.output, format="tif", color_space="srgb")
        written = {}
        right_target, left_target = job.outputs
        for target, view in ((left_target, views.left), (right_target, views.right)):
            written[target] = write_picture(
                target, view, output, views.metadata, note, orientation=views.orientation
            )
        return saved(job, split.inputs, written, views.warnings)

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
