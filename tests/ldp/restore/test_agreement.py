"""How far a photo restored in tiles is from the same photo restored whole."""

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from ldp.models.conversion import convert
from ldp.models.weights import load_network, read_header, resolve, shipped_names
from ldp.restore.deblur import Deblurrer
from ldp.types import BlurMap, ViewPair
from tests.helpers import released_reference as reference

HEIGHT, WIDTH = 560, 840
TILE_PX = 512  # half of what is chosen without one: more of the photo is near the edge of a tile
LEAST_DB = 45


@pytest.fixture(scope="module")
def photo():
    """Four photographs side by side as two views, more and more out of focus to the right."""
    pictures = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    quarters = [cv2.resize(x, (WIDTH // 2, HEIGHT // 2)).astype(np.float32) for x in pictures]
    sharp = np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])]) / 255
    amount = np.linspace(0, 1, WIDTH, dtype=np.float32)[None].repeat(HEIGHT, 0)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)) * np.arange(1, 16)
    views = [
        cv2.filter2D(sharp, -1, kernel / disk.sum()) * amount[..., None]
        + sharp * (1 - amount[..., None])
        for kernel in (disk, disk[:, ::-1])
    ]
    left, right = ((view * 65535).astype(np.uint16) for view in views)
    return ViewPair(left, right), BlurMap(amount)


def deblurrer_of(path):
    return Deblurrer.of(load_network(path), torch.device("cpu"), TILE_PX)


TWO_VIEWS = [name for name in shipped_names() if read_header(resolve(name)).network == "LDP"]


def agreement_db(deblurrer, photo):
    # One tile that is larger than the photo, on the grid of any network.
    whole = replace(deblurrer, tile_px=2048).restore_uint16(*photo) / 65535
    assert whole.std() > 0.05
    tiled = deblurrer.restore_uint16(*photo) / 65535
    return -10 * np.log10(((tiled - whole) ** 2).mean())


def report(capsys, name, agreement):
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: tiled and whole agree to {agreement:.1f} dB PSNR\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO_VIEWS)
def test_a_shipped_network_gives_in_tiles_what_it_gives_whole(name, photo, capsys):
    agreement = agreement_db(deblurrer_of(resolve(name)), photo)
    report(capsys, name, agreement)
    assert agreement > LEAST_DB


@pytest.mark.slow
def test_the_released_network_does_so_even_with_random_weights(photo, tmp_path, capsys):
    """Its own weights cannot be had here; at random ones every statistic matters a lot."""
    weights = {k: torch.tensor(v).float() for k, v in reference.random_weights().items()}
    torch.save({"params": weights}, tmp_path / "model.pth")
    convert(tmp_path / "model.pth", tmp_path / "released.safetensors")
    deblurrer = deblurrer_of(tmp_path / "released.safetensors")
    views = np.concatenate([photo[0].left, photo[0].right], 2)[300:556, 300:556] / 65535
    example = torch.tensor(views).float().permute(2, 0, 1)[None], torch.rand(1, 1, 32, 32)
    network = reference.Developed(deblurrer.network, example)
    agreement = agreement_db(replace(deblurrer, network=network), photo)
    report(capsys, "released network, random weights", agreement)
    assert agreement > LEAST_DB
