"""Restorations kept beside the journal, so that another choice of depths costs only the blend."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dpbatch.errors import OutputError
from dpbatch.fingerprints import fingerprint
from dpbatch.focus_settings import FocusSettings
from dpbatch.location import Location, absolute
from dpbatch.output.atomic import atomic_file
from dpbatch.photo import RestoredPhoto
from dpbatch.settings import OutputSettings, Settings
from dpbatch.storage.base import FOLDER
from dpbatch.types import FileStamp

if TYPE_CHECKING:
    from dpbatch.output.metadata import PhotoMetadata
    from dpbatch.raw.restored import RestoredRaw
    from ldp.types import Plane16

LIMIT_BYTES = 20 * 10**9
"""The oldest are removed where all together take more."""
_FOLDER = "restorations"
_PLANES = (
    "amount",
    "disparity_px",
    "confidence",
    "radius_px",
    "radius_confidence",
    "corrected_px",
    "placed_px",
    "placed_amount",
)
_PICTURES = ("sharp", "original")
_DAMAGED = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError),
    *(EOFError, OSError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile),
)
"""What reading a damaged file raises, or one of another program, which may claim any size."""


def kept_folder(out: Path) -> Path:
    """Return the folder of the restorations that an output folder keeps."""
    return out / FOLDER / _FOLDER


def forget(out: Path) -> tuple[int, int]:
    """Remove all kept restorations of an output folder; returns how many, and their bytes."""
    count = size_bytes = 0
    for path, found in _files(kept_folder(out)).items():
        path.unlink(missing_ok=True)
        count, size_bytes = count + 1, size_bytes + found.st_size
    return count, size_bytes


def restoration_key(settings: Settings, weights_sha256: str, clip_id: str) -> str:
    """Return a key that is equal for settings that restore a photo equally and need the same of it,
    whatever of it is kept and however it is written."""
    output = settings.output
    is_dng, is_srgb = output.format == "dng", output.color_space == "srgb"
    needed = OutputSettings(
        look=output.look,
        highlights=output.highlights,
        dng=output.dng if is_dng else OutputSettings().dng,
        # All wide ones are made of the same light.
        color_space="srgb" if is_srgb or is_dng else "prophoto",
        layers_in="exr" if output.layers_in == "exr" else "files",  # has light above white
    )
    plain = replace(settings, focus=FocusSettings(), output=needed)
    key = fingerprint(plain, weights_sha256, clip_id)  # which knows of no format
    return f"{key} dng" if is_dng else key


@dataclass(frozen=True)
class KeptRestorations:
    """The restored and the untouched picture of each photo with its map, 12 bytes a pixel; for a
    DNG also both mosaics, 16 in all, and for light beyond sRGB both pictures of it, 24.

    folder: see `kept_folder`. key: see `restoration_key`. limit_bytes: of all of them together.
    """

    folder: Path
    key: str
    limit_bytes: int = LIMIT_BYTES

    def has(self, job_id: str, inputs: Sequence[FileStamp] = ()) -> bool:
        """Return whether a photo's restoration is kept; of `inputs`, where these are given."""
        import numpy as np

        try:
            with self._path(job_id).open("rb") as file, np.load(file) as stored:
                about: dict[str, Any] = json.loads(str(stored["about"]))
                return self._fits(about, inputs or None)
        except _DAMAGED:
            return False

    def _fits(self, about: dict[str, Any], inputs: Sequence[FileStamp] | None) -> bool:
        same = inputs is None or about["inputs"] == _hashes(inputs)
        return bool(about["key"] == self.key and same)

    def read(
        self, job_id: str, inputs: Sequence[FileStamp], metadata: PhotoMetadata
    ) -> RestoredPhoto | None:
        """Return a photo's restoration, None where there is none of these inputs and this key.

        A damaged one is removed.
        """
        if not self.has(job_id, inputs):
            return None
        path = self._path(job_id)
        try:
            restored = _read(path, metadata)
            os.utime(path)  # the ones that were used last are kept longest
        except _DAMAGED:
            with contextlib.suppress(OSError):
                path.unlink()  # or it would be in the way of a new one, see `has`
            return None
        return restored

    def keep(
        self, job_id: str, inputs: Sequence[FileStamp], restored: RestoredPhoto
    ) -> tuple[str, ...]:
        """Keep a photo's restoration, unless it is; returns a warning where that fails."""
        if self.has(job_id, inputs):
            return ()
        try:
            self.write(job_id, inputs, restored)
        except OutputError as error:
            return (f"the restoration is not kept: {error}",)
        return ()

    def write(self, job_id: str, inputs: Sequence[FileStamp], restored: RestoredPhoto) -> None:
        """Keep a photo's restoration. Raises OutputError, DiskFullError."""
        import numpy as np

        if restored.original is None or restored.blur_map is None or restored.has_look:
            return
        curve = restored.curve
        about = {
            "key": self.key,
            "inputs": _hashes(inputs),
            "orientation": restored.orientation,
            "curve": None if curve is None else [list(curve.x), list(curve.y)],
            "warnings": list(restored.warnings),
            "raw": None if restored.raw is None else restored.raw.about(),
        }
        planes = {name: getattr(restored.blur_map, name) for name in _PLANES}
        for of, raw in zip(_PICTURES, (restored.raw, restored.original_raw), strict=True):
            if raw is not None:
                planes |= {f"{of}_{name}": plane for name, plane in raw.planes().items()}
        arrays = {name: plane for name, plane in planes.items() if plane is not None}
        arrays |= {"sharp": restored.sharp, "original": restored.original}
        about["arrays"] = sorted(arrays)
        with atomic_file(self._path(job_id)) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
        self._remove_oldest(self._path(job_id))

    def _remove_oldest(self, newest: Path) -> None:
        files, total = _files(self.folder), 0
        for path in sorted(files, key=lambda path: (path != newest, -files[path].st_mtime_ns)):
            total += files[path].st_size
            if total > self.limit_bytes and path != newest:
                with contextlib.suppress(OSError):  # another process was faster
                    path.unlink()

    def _path(self, job_id: str) -> Path:
        digest = hashlib.blake2b(job_id.encode(errors="surrogateescape"), digest_size=4).hexdigest()
        return self.folder / f"{PurePosixPath(job_id).name[:80]}.{digest}.npz"


def _files(folder: Path) -> dict[Path, os.stat_result]:
    """Return what is kept, with its size and age. Raises OutputError."""
    files = {}
    try:
        for path in folder.iterdir():
            if path.suffix == ".npz":
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    files[path] = path.stat()
        return files
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read: {error.strerror}") from error


def _read(path: Path, metadata: PhotoMetadata) -> RestoredPhoto:
    """Return what `KeptRestorations.write` wrote. Raises one of _DAMAGED for all else."""
    import numpy as np

    from dpbatch.batch.kept_check import is_restoration
    from dpbatch.output.tone import ToneCurve
    from ldp.types import BlurMap

    with path.open("rb") as file, np.load(file) as stored:
        about: dict[str, Any] = json.loads(str(stored["about"]))
        if sorted(about["arrays"]) != sorted({*stored} - {"about"}):
            raise ValueError("other arrays than were kept")
        planes = {name: stored[name] for name in _PLANES if name in stored}
        sharp, original = stored["sharp"], stored["original"]
        raw, original_raw = (_raw_of(about["raw"], stored, of) for of in _PICTURES)
    curve = about["curve"]
    restored = RestoredPhoto(
        sharp,
        BlurMap(**planes),
        about["orientation"],
        metadata,
        None if curve is None else ToneCurve(tuple(curve[0]), tuple(curve[1])),
        tuple(about["warnings"]),
        raw=raw,
        original=original,
        original_raw=original_raw,
    )
    if not is_restoration(restored):
        raise ValueError("not a restored photo")
    return restored


def _raw_of(
    about: dict[str, Any] | None, stored: Mapping[str, Plane16], picture: str
) -> RestoredRaw | None:
    """Return what editors go on with of one of _PICTURES; None where nothing was kept for them."""
    from dpbatch.raw.restored import RAW_PLANES, RestoredRaw

    names = {name: f"{picture}_{name}" for name in RAW_PLANES}
    planes = {name: stored[key] for name, key in names.items() if key in stored}
    if bool(planes) != (about is not None):
        raise ValueError("pixels for editors without their description, or the other way round")
    return None if about is None else RestoredRaw.of(about, planes)


def _hashes(inputs: Sequence[FileStamp]) -> list[str]:
    return [file.blake2b for file in inputs]


def kept_for(
    out: Location, asked: bool | None, settings: Settings, weights_sha256: str, clip_id: str
) -> KeptRestorations | None:
    """Return where a run keeps restorations; None for a remote folder, or if none are wanted.

    asked: None keeps them where not all of a photo is restored.
    """
    wanted = not settings.focus.is_everything if asked is None else asked
    if not wanted or not isinstance(out, Path):
        return None
    key = restoration_key(settings, weights_sha256, clip_id)
    return KeptRestorations(kept_folder(absolute(out)), key)
