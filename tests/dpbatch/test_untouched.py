"""What is in focus in a raw photo is the composite's own development, whatever restores it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ldp
from dpbatch.raw.develop import RawViews
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings
from ldp.models.network import LDPNet
from ldp.types import BlurMap, to_uint16
from tests.helpers.scale_networks import MICRO
from tests.helpers.scenes import write_test_dpraw

CPU = torch.device("cpu")


def changing_network() -> LDPNet:
    """A network whose result is not the mean of the views."""
    network = LDPNet(MICRO)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("in_focus", [True, False])
def test_untouched_is_bit_for_bit_the_composite(tmp_path: Path, in_focus: bool) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, 192, 288, noise_dn=8)
    pair = read_dual(path)
    disparity_px = np.full((24, 36), 0.0 if in_focus else 5.0, np.float32)
    blur_map = BlurMap(np.abs(disparity_px), disparity_px)
    torch.manual_seed(0)
    model = ldp.Model(changing_network(), device="cpu", tile=64, protect=True)
    result = model.restore_photo(
        lambda device: RawViews(pair, RawSettings(), device), blur_map=blur_map
    )
    views = RawViews(pair, RawSettings(), CPU)
    area = slice(0, 192), slice(0, 288)
    composite = views.untouched(*area).permute(1, 2, 0).numpy()
    assert np.array_equal(result.sharp, to_uint16(composite)) == in_focus
    if not in_focus:
        both = views.pair(*area).permute(1, 2, 0).numpy()
        mean = to_uint16((both[..., :3] + both[..., 3:]) / 2).astype(int)
        assert np.abs(result.sharp - mean).mean() > 300


def test_at_scales_too_what_is_in_focus_is_bit_for_bit_the_composite(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, 192, 288, noise_dn=8)
    pair = read_dual(path)
    radius_px = np.zeros((96, 144), np.float32)
    radius_px[:, 72:108] = -4.0  # at full size
    radius_px[:, 108:] = -60.0  # at an eighth
    blur_map = BlurMap(np.asarray(np.abs(radius_px) / 60, np.float32), radius_px=radius_px)
    torch.manual_seed(0)
    model = ldp.Model(changing_network(), device="cpu", tile=64, scale="auto", protect=True)
    result = model.restore_photo(
        lambda device: RawViews(pair, RawSettings(), device), blur_map=blur_map
    )
    area = slice(0, 192), slice(0, 288)
    composite = RawViews(pair, RawSettings(), CPU).untouched(*area).permute(1, 2, 0).numpy()
    expected = to_uint16(composite)
    assert np.array_equal(result.sharp[:, :128], expected[:, :128])
    change = np.abs(result.sharp.astype(int) - expected)
    assert min(change[:, 160:190].mean(), change[:, 250:].mean()) > 300
