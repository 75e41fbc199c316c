"""The DPDD data set (Abuolaim and Brown, "Defocus Deblurring Using Dual-Pixel Data", ECCV 2020).

Scenes are found in the set's own layout or in the common repack, read once into files that crops
are cut from without decoding (34 MB a scene), and cut by the set's patch rules. Blur maps are made
of whole photos, as when a photo is restored, and each crop reads its part of the file: a patch by
itself shows neither how far the views may differ nor where in the frame it lies, and gets another
map. A map is one small file a photo; patches overlap so much that a file for each would hold it six
times.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldp.blur.estimator import BlurEstimator
from ldp.restore.tiling import read_map_window
from ldp.types import MapPlane, Plane, ViewPair
from training.errors import DataError
from training.files import whole_file
from training.pictures import read_rgb

Pixels = npt.NDArray[np.uint16]

OVERLAP = 0.6
SOBEL_KERNELS = (3, 7, 11, 15)
# The sharp photo of a scene was taken right before or after the blurred one.
_LARGEST_CAPTURE_STEP = 3
_CAPTURE_NUMBERS = 10_000
_CACHE_VERSION = "2"


@dataclass(frozen=True)
class Scene:
    """The files of a scene: the two views and the photo that is sharp all over."""

    left: Path
    right: Path
    sharp: Path


@dataclass(frozen=True)
class PreparedScene:
    """A scene ready to be cut.

    pixels: .npy, (H, W, 9) uint16: left RGB, right RGB, sharp RGB, sRGB-encoded. blur: .npy,
    (planes, h, w) float32, planes of the whole photo's blur map. patches: (top, left) of each patch
    that is kept.
    """

    pixels: Path
    blur: Path
    patches: tuple[tuple[int, int], ...]


def find_scenes(folder: Path, split: str = "train") -> list[Scene]:
    """Return the scenes of a split, in sorted order, from either layout.

    folder: holds, or is, dd_dp_dataset_canon with train_l/source, train_r/source, train_c/target;
    or the repack, inputL, inputR and target, with or without a folder train/ around them.

    Raises DataError where there is neither, where counts differ or where names do not match.
    """
    for root in (folder, folder / "dd_dp_dataset_canon"):
        own = [root / f"{split}_{part}" for part in ("l/source", "r/source", "c/target")]
        if own[0].is_dir():
            left, right, sharp = _equally_many(own)
            scenes = [Scene(*files) for files in zip(left, right, sharp, strict=True)]
            for scene in scenes:
                _check_capture(scene)
            return scenes
    for root in (folder / split, folder):
        repack = [root / part for part in ("inputL", "inputR", "target")]
        if repack[0].is_dir():
            left, right, sharp = _equally_many(repack)
            scenes = [Scene(*files) for files in zip(left, right, sharp, strict=True)]
            for scene in scenes:
                if not scene.left.stem == scene.right.stem == scene.sharp.stem:
                    raise DataError(
                        f"{root}: {scene.left.name}, {scene.right.name} and {scene.sharp.name} "
                        "stand at the same place, expected one name for all three"
                    )
            return scenes
    raise DataError(
        f"{folder}: no DPDD; expected {split}_l/source, {split}_r/source and {split}_c/target, or "
        f"{split}/inputL, {split}/inputR and {split}/target, with 16-bit PNG files"
    )


def find_combined_scenes(folder: Path, split: str = "train") -> list[Scene] | None:
    """Return the combined photos of a split with their sharp ones; both views are the photo.

    folder: as in find_scenes, with train_c/source and train_c/target, paired in sorted order, or
        with inputC and target in the repack. None where it has neither.

    Raises DataError where counts differ or files are not of one scene.
    """
    for root in (folder, folder / "dd_dp_dataset_canon"):
        blurred = root / f"{split}_c" / "source"
        if blurred.is_dir():
            pairs = zip(*_equally_many([blurred, blurred.with_name("target")]), strict=True)
            scenes = [Scene(source, source, sharp) for source, sharp in pairs]
            for scene in scenes:
                _check_capture(scene)
            return scenes
    for root in (folder / split, folder):
        if (root / "inputC").is_dir():
            pairs = zip(*_equally_many([root / "inputC", root / "target"]), strict=True)
            return [Scene(source, source, sharp) for source, sharp in pairs]
    return None


def read_scene(scene: Scene) -> Pixels:
    """Read (H, W, 9) uint16: left RGB, right RGB, sharp RGB; 8-bit files fill the 16 bits.

    Raises DataError for an unreadable file and where the sizes differ.
    """
    pictures = [_read(path) for path in (scene.left, scene.right, scene.sharp)]
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        sizes = ", ".join(
            f"{path.name} {picture.shape[1]} x {picture.shape[0]}"
            for path, picture in zip((scene.left, scene.right, scene.sharp), pictures, strict=True)
        )
        raise DataError(f"{scene.left}: the sizes of a scene differ: {sizes}")
    return np.concatenate(pictures, axis=2)


def patch_places(size: tuple[int, int], patch_px: int) -> list[tuple[int, int]]:
    """Return (top, left) of the patches of a photo of (height, width).

    They overlap by 0.6; the last row and column end at the border. Raises DataError where the photo
    is smaller than a patch.
    """
    if min(size) < patch_px:
        raise DataError(f"a photo of {size[1]} x {size[0]} is smaller than a patch of {patch_px}")
    stride = max(1, int(patch_px * (1 - OVERLAP)))
    tops, lefts = (sorted({*range(0, side - patch_px, stride), side - patch_px}) for side in size)
    return [(top, left) for top in tops for left in lefts]


def sharpness(patch: Pixels) -> float:
    """Return how much fine structure a patch has; 0 for one without any.

    patch: (H, W, 3). The magnitudes of the gradient by Sobel kernels of each of SOBEL_KERNELS are
    stretched to [0, 1] over the patch; their product is summed over its pixels.
    """
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float64)
    product = np.ones_like(grey)
    for kernel in SOBEL_KERNELS:
        along = cv2.Sobel(grey, cv2.CV_64F, 1, 0, ksize=kernel)
        down = cv2.Sobel(grey, cv2.CV_64F, 0, 1, ksize=kernel)
        magnitude = np.hypot(along, down)
        lowest, highest = magnitude.min(), magnitude.max()
        if highest <= lowest:
            return 0.0
        product *= (magnitude - lowest) / (highest - lowest)
    return float(product.sum())


def sharpest_patches(sharp: Pixels, patch_px: int, drop: int) -> list[tuple[int, int]]:
    """Return (top, left) of a sharp photo's patches in reading order, without the least sharp ones.

    drop: how many are left out. Raises DataError where none would be left.
    """
    places = patch_places((sharp.shape[0], sharp.shape[1]), patch_px)
    if drop >= len(places):
        raise DataError(f"{len(places)} patches, of which {drop} would be dropped: none is left")
    values = [sharpness(sharp[y : y + patch_px, x : x + patch_px]) for y, x in places]
    kept = np.sort(np.argsort(values, kind="stable")[drop:])
    return [places[int(index)] for index in kept]


def prepare(
    scene: Scene,
    cache: Path,
    estimator: BlurEstimator,
    estimator_id: str,
    *,
    patch_px: int,
    drop: int,
    planes: tuple[MapPlane, ...] = ("amount",),
) -> PreparedScene:
    """Read a scene, choose its patches and estimate its blur map.

    All of it is kept in `cache` under names that change with the source files (their size and time
    of change) and with the settings that it depends on, so it is made once. estimator_id: text that
    differs between estimators which give different maps. planes: those of the map that are kept;
    the estimator must give them.

    Raises DataError for a scene that cannot be used.
    """
    files = [identity(path) for path in (scene.left, scene.right, scene.sharp)]
    name = scene.left.stem

    def chosen() -> npt.NDArray[np.int32]:
        sharp = np.ascontiguousarray(np.load(pixels, mmap_mode="r")[..., 6:])
        try:
            return np.array(sharpest_patches(sharp, patch_px, drop), np.int32)
        except DataError as error:
            raise DataError(f"{scene.left}: {error}") from error

    def estimated() -> Plane:
        stored = np.load(pixels, mmap_mode="r")
        left, right = (np.ascontiguousarray(stored[..., first : first + 3]) for first in (0, 3))
        blur_map = estimator.estimate(ViewPair(left, right))
        # Not as float16: soft values differ by some hundredths, of which that would leave tens.
        return np.stack([getattr(blur_map, plane) for plane in planes]).astype(np.float32)

    pixels = _cached(cache, name, "pixels", files, lambda: read_scene(scene))
    patches = _cached(cache, name, "patches", [*files, f"{patch_px} {drop}"], chosen)
    blur = _cached(cache, name, "blur", [*files, estimator_id, *planes], estimated)
    places = tuple((int(top), int(left)) for top, left in np.load(patches))
    return PreparedScene(pixels, blur, places)


class DpddCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random crops of patches: views (6, S, S), blur map (planes, S, S), sharp (3, S, S).

    Position n is a crop of the n-th patch of an endless sequence of shuffled rounds through all
    patches. What is sampled at a position follows from the seed and the position alone, so training
    resumes exactly, with any number of workers.
    """

    def __init__(
        self, scenes: Sequence[PreparedScene], patch_px: int, crop_px: int, seed: Sequence[int]
    ) -> None:
        self.scenes = scenes
        self.patch_px = patch_px
        self.crop_px = crop_px
        self.seed = tuple(seed)
        self.patches = [
            (index, place) for index, scene in enumerate(scenes) for place in scene.patches
        ]
        self._round = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        turn, at = divmod(position, len(self.patches))
        if turn != self._round:
            rng = np.random.default_rng([*self.seed, 0, turn])
            self._round, self._order = turn, rng.permutation(len(self.patches))
        scene, place = self.patches[int(self._order[at])]
        rng = np.random.default_rng([*self.seed, 1, position])
        return self._cut(rng, self.scenes[scene], place)

    def _cut(
        self, rng: np.random.Generator, scene: PreparedScene, place: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        side = self.crop_px
        top, left = (start + int(rng.integers(self.patch_px - side + 1)) for start in place)
        pixels = np.load(scene.pixels, mmap_mode="r")
        crop = pixels[top : top + side, left : left + side].astype(np.float32) / np.float32(65535)
        window = (top, left, side, side)
        planes = np.load(scene.blur, mmap_mode="r")
        blur = np.stack([read_map_window(plane, pixels.shape[:2], *window) for plane in planes])
        if rng.random() < 0.5:
            crop, blur = crop[::-1], blur[:, ::-1]
        if rng.random() < 0.5:
            # In a mirror the left photodiode's view is the right one's.
            crop = crop[:, ::-1, [3, 4, 5, 0, 1, 2, 6, 7, 8]]
            blur = blur[..., ::-1]
        channels = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return channels[:6], torch.from_numpy(np.ascontiguousarray(blur)), channels[6:]


def _equally_many(folders: list[Path]) -> list[list[Path]]:
    files = [sorted(folder.glob("*.png")) for folder in folders]
    if len({len(found) for found in files}) > 1 or not files[0]:
        counts = ", ".join(f"{f}: {len(x)}" for f, x in zip(folders, files, strict=True))
        raise DataError(f"expected as many PNG files in each folder, and some; found {counts}")
    return files


def _check_capture(scene: Scene) -> None:
    """Raise DataError unless the views are of one capture and the sharp photo belongs to it."""
    name = scene.left.stem.removesuffix("_L")
    if scene.left != scene.right and f"{name}_R" != scene.right.stem:
        raise DataError(
            f"{scene.left} and {scene.right} stand at the same place, expected one name but for "
            "_L and _R"
        )
    numbers = [re.search(r"\d+$", stem) for stem in (name, scene.sharp.stem)]
    if numbers[0] and numbers[1]:
        step = abs(int(numbers[0][0]) - int(numbers[1][0])) % _CAPTURE_NUMBERS
        if min(step, _CAPTURE_NUMBERS - step) > _LARGEST_CAPTURE_STEP:
            raise DataError(
                f"{scene.left} and {scene.sharp} stand at the same place, but their numbers are "
                f"{step} apart, expected 1 or 2; is a file missing?"
            )


def _read(path: Path) -> Pixels:
    picture = read_rgb(path)
    if picture.dtype == np.uint8:
        return picture.astype(np.uint16) * np.uint16(257)
    return np.asarray(picture, np.uint16)


def identity(path: Path) -> str:
    """Return text that changes when the file does: its path, size and time of change."""
    known = path.stat()
    return f"{path.resolve()} {known.st_size} {known.st_mtime_ns}"


def _cached(
    cache: Path,
    name: str,
    what: str,
    depends_on: list[str],
    make: Callable[[], npt.NDArray[Any]],
) -> Path:
    """Return the .npy file of what make() gives, made if it is not there."""
    key = hashlib.sha256("\n".join([_CACHE_VERSION, what, *depends_on]).encode()).hexdigest()[:16]
    path = cache / f"{name}-{what}-{key}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, make())
    return path
