"""The scenes that the outline network is trained on, and its training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import ldp
from ldp.blur.outline_net import (
    COARSE_PLANES,
    FINE_PLANES,
    LEVELS,
    OutlineNet,
    OutlineNetConfig,
)
from ldp.blur.outline_weights import load_outline_network
from training.errors import DataError
from training.outline_scenes import OutlineScene, make_scene, read_planes, stored_planes
from training.outlines import (
    CROP_PX,
    CropMaker,
    checked_scenes,
    errors,
    loss_of,
    main,
    train,
)
from training.simulator.textures import drawn_texture, matched_texture

SMALL = OutlineNetConfig((4, 6, 8, 8, 8))


def _scene(seed: int) -> OutlineScene:
    rng = np.random.default_rng(seed)
    side = 256
    depth = (np.arange(side) >= seed * 10 + 110).astype(np.float16) * np.ones((side, 1), np.float16)
    return OutlineScene(
        rng.integers(0, 256, (FINE_PLANES, side, side)).astype(np.uint8),
        rng.integers(0, 256, (COARSE_PLANES, side // 2, side // 2)).astype(np.uint8),
        np.full((side, side), 0.5, np.float16),
        np.asarray(depth, np.float16),
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.npz" for number in range(3)]
    for number, path in enumerate(paths):
        _scene(number).save(path)
    return paths


def test_a_scene_goes_through_a_file(files: list[Path]) -> None:
    again, scene = OutlineScene.load(files[1]), _scene(1)
    for name in ("fine", "coarse", "own", "depth"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scene, name))
    planes = np.linspace(-4, 4, 50, dtype=np.float32)
    np.testing.assert_allclose(read_planes(stored_planes(planes)), planes, atol=0.02)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04 cut", None, {"own": np.zeros((4, 4))}]
)
def test_a_file_that_is_no_scene_is_named(
    tmp_path: Path, files: list[Path], content: bytes | dict[str, np.ndarray] | None
) -> None:
    path = tmp_path / "7-00000.npz"
    if isinstance(content, dict):
        np.savez(path, allow_pickle=False, **content)
    else:
        path.write_bytes(files[0].read_bytes()[:100_000] if content is None else content)
    with pytest.raises(DataError, match=r"7-00000\.npz: not a scene"):
        checked_scenes(tmp_path)


def test_a_scene_of_other_sizes_is_named(files: list[Path]) -> None:
    scene = _scene(0)
    OutlineScene(scene.fine[:-1], scene.coarse, scene.own, scene.depth).save(files[1])
    with pytest.raises(DataError, match=r"1\.npz: not a scene of this network"):
        checked_scenes(files[0].parent)


def test_a_scene_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    scene = _scene(0)
    broken = OutlineScene(scene.fine, scene.coarse, scene.own, np.array([object()]))
    with pytest.raises(ValueError, match="allow_pickle"):
        broken.save(tmp_path / "0.npz")
    assert not list(tmp_path.iterdir())


def _command(
    monkeypatch: pytest.MonkeyPatch, photos: Path, out: Path, scenes: Path, *more: str
) -> str:
    """Return what the command says as it ends."""
    arguments = [str(photos), "--out", str(out), "--scenes", str(scenes), *more]
    monkeypatch.setattr("sys.argv", ["outlines", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return str(ended.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--minutes", "-1"), "--minutes -1.0: expected 0 or more"),
        (("--minutes", "nan"), "--minutes nan: expected 0 or more"),
        (("--count", "-1"), "--count -1: expected 0 or more"),
        (("--seed", "-1"), "--seed -1: expected 0 or more"),
        (("--rate", "0"), "--rate 0.0: expected more than 0"),
        ((), "no photos; expected a folder with"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    photos, scenes = tmp_path / "photos", tmp_path / "scenes"
    photos.mkdir()
    said = _command(monkeypatch, photos, tmp_path / "o.safetensors", scenes, *arguments)
    assert said.startswith("training.outlines: ")
    assert expected in said
    assert sorted(tmp_path.iterdir()) == [photos]


def test_weights_that_cannot_be_written_are_refused_before_scenes_are_rendered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "nowhere" / "o.safetensors"
    assert f"there is no folder {out.parent}" in _command(monkeypatch, tmp_path, out, tmp_path)


def test_too_few_scenes_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: list[Path]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "o.safetensors"
    photos.mkdir()
    cv2.imwrite(str(photos / "0.png"), np.zeros((40, 60, 3), np.uint8))
    for path in files[1:]:
        path.unlink()
    said = _command(monkeypatch, photos, out, tmp_path, "--count", "0")
    assert "1 scenes; expected at least 2" in said
    assert not out.exists()


def test_a_mirrored_crop_has_its_views_exchanged(files: list[Path]) -> None:
    """The crops of one scene show its step at either side, and the differences of the views have
    the sign that goes with it."""
    maker = CropMaker(files[:1], seed=3)
    whole = read_planes(_scene(0).fine)
    signs = set()
    for _ in range(12):
        crops = maker.draw(1)
        assert crops.fine.shape == (1, FINE_PLANES, CROP_PX, CROP_PX)
        assert crops.coarse.shape == (1, COARSE_PLANES, CROP_PX // 2, CROP_PX // 2)
        row = crops.depth[0, 0, 0].numpy()
        is_mirrored = row[0] > row[-1]
        sign = -1 if is_mirrored else 1
        wanted = whole[6][:, ::sign]
        found = sign * crops.fine[0, 6].numpy()
        assert _holds(wanted, found) or _holds(wanted[::-1], found)
        signs.add(sign)
    assert signs == {-1, 1}


def _holds(picture: np.ndarray, part: np.ndarray) -> bool:
    """Return whether a picture has a part somewhere."""
    return any(
        np.allclose(picture[y : y + CROP_PX, x : x + CROP_PX], part, atol=1e-5)
        for y in range(len(picture) - CROP_PX + 1)
        for x in np.flatnonzero(np.isclose(picture[y, : -CROP_PX + 1], part[0, 0], atol=1e-5))
    )


def test_the_loss_is_least_for_the_truth() -> None:
    own, depth = torch.full((1, 1, 4, 4), 0.3), torch.full((1, 1, 4, 4), 0.75)
    found = torch.full((1, LEVELS + 1, 4, 4), 1e-3)
    found[:, 6] = 1
    best = loss_of(found, own, depth)
    for other in (0, 5, LEVELS):
        wrong = torch.full((1, LEVELS + 1, 4, 4), 1e-3)
        wrong[:, other] = 1
        assert loss_of(wrong, own, depth) > best
    kept = torch.zeros_like(found)
    kept[:, LEVELS] = 1
    assert loss_of(kept, depth, depth) < loss_of(kept, own, depth)


def test_a_training_saves_what_can_be_loaded(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "outlines.safetensors"
    train(OutlineNet(SMALL), files, out, seconds=0.2, rate=1e-3, seed=1)
    network = load_outline_network(out)
    assert network.config == SMALL
    off, off_map, wrong, wrong_map = errors(network, files)
    assert off_map == pytest.approx(0.5, abs=0.01)
    assert wrong_map == 1
    assert 0 < off < 1
    assert 0 <= wrong <= 1


def test_a_texture_takes_the_brightness_of_another() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        texture, other = drawn_texture(rng, 96), drawn_texture(rng, 96) * np.float32(0.4)
        assert texture.shape == (96, 96, 3)
        assert texture.dtype == np.float32
        assert 0 <= texture.min() < texture.max() <= 1
        matched = matched_texture(rng, texture, other)
        assert matched.mean() == pytest.approx(other.mean(), rel=0.3)


@pytest.mark.slow
def test_a_rendered_scene_has_its_map_and_its_truth() -> None:
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (60, 90, 3)).astype(np.uint8)
    photo = np.asarray(cv2.resize(noise, (1080, 720), interpolation=cv2.INTER_CUBIC), np.uint8)
    scene = make_scene(np.random.default_rng(4), [photo], ldp.load("tiny"))
    assert scene is not None
    assert scene.own.shape == scene.depth.shape == scene.fine.shape[1:]
    assert len(scene.fine) == FINE_PLANES
    assert len(scene.coarse) == COARSE_PLANES
    # The map is near the truth in most places.
    assert np.median(np.abs(scene.own - scene.depth)) < 0.15
