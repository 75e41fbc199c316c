"""A network of one view restores whole pictures in tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ldp
from ldp.errors import DeviceMemoryError
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.weights import save_network
from ldp.restore.composite import CompositeRestorer, kept_share
from ldp.restore.noise import noise_level
from ldp.types import FloatArray

CPU = torch.device("cpu")
CONFIG = NetworkConfig(
    width=8, encoder=(1, 1), middle=1, decoder=(1, 1), crop_px=32, attention=False, views=1
)


def network() -> LDPNet:
    torch.manual_seed(0)
    made = LDPNet(CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def picture(height: int, width: int) -> FloatArray:
    rng = np.random.default_rng(0)
    return np.asarray(rng.random((height, width, 3)), np.float32)


def restored(tile_px: int, given: FloatArray, protects: bool = False) -> FloatArray:
    restorer = CompositeRestorer.of(network(), CPU, tile_px, protects)
    return ldp.SingleModel(restorer, ldp.SingleInfo(parameters=0)).restore(given)


def test_tiles_give_what_one_pass_gives() -> None:
    given = picture(150, 210)
    np.testing.assert_allclose(restored(64, given), restored(256, given), atol=2e-4)


def test_the_network_is_given_the_pictures_own_noise_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, seen = picture(32, 48), []
    plain = LDPNet.forward

    def noted(self: LDPNet, views: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        seen.append((float(level.min()), float(level.max())))
        return plain(self, views, level)

    monkeypatch.setattr(LDPNet, "forward", noted)
    changed = restored(64, given) - given
    assert len(seen) == 1
    assert seen[0] == pytest.approx((noise_level(given),) * 2)
    assert np.abs(changed).max() > 1e-3


def test_what_the_network_would_hardly_change_stays_as_it_is() -> None:
    """In focus it finds little to do; where there is blur nothing of its work is held back."""
    change = np.zeros((64, 200, 3), np.float32)
    change[:, :100], change[:, 100:] = 0.003, 0.02
    share = kept_share(change)
    assert share[:, :60].max() == 0
    assert share[:, 140:].min() == 1
    assert (np.diff(share[32]) >= -1e-6).all()


def test_protection_changes_a_part_of_what_the_network_changes() -> None:
    given = picture(80, 90)
    free, protected = restored(128, given), restored(128, given, protects=True)
    share = kept_share(free - given)[..., None]
    np.testing.assert_allclose(protected - given, (free - given) * share, atol=1e-5)


def test_memory_that_holds_no_tile_is_tried_with_smaller_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restorer = CompositeRestorer.of(network(), CPU, 512)
    given, sizes = picture(40, 600), []
    plain = type(restorer.deblurrer).tile_restorer

    def small_memory(*arguments: object) -> object:
        tile = plain(*arguments)  # type: ignore[arg-type]

        def checked(row: object, column: object) -> FloatArray:
            length = column.length  # type: ignore[attr-defined]
            sizes.append(length)
            if length > 200:
                raise torch.OutOfMemoryError
            return tile(row, column)  # type: ignore[arg-type]

        return checked

    monkeypatch.setattr(type(restorer.deblurrer), "tile_restorer", small_memory)
    bands: dict[int, FloatArray] = {}
    restorer.restore_bands(given, bands.__setitem__)
    assert max(sizes) > 200 > min(sizes)
    assert np.concatenate([bands[row] for row in sorted(bands)]).shape == given.shape
    monkeypatch.setattr("ldp.restore.composite.MIN_TILE_PX", 512)
    with pytest.raises(DeviceMemoryError, match="free some of it"):
        restorer.restore_bands(given, bands.__setitem__)


def test_a_network_of_one_view_is_none_of_two(tmp_path: Path) -> None:
    save_network(network(), tmp_path / "one.safetensors")
    with pytest.raises(ldp.WeightsError, match=r"single pictures.*ldp\.load_single"):
        ldp.load(str(tmp_path / "one.safetensors"), device="cpu")
    name = str(tmp_path / "one.safetensors")
    model = ldp.load_single(name, device="cpu", tile=64, protect=False)
    np.testing.assert_allclose(
        model.restore(picture(70, 90)), restored(64, picture(70, 90)), atol=0.01
    )
    save_network(LDPNet(replace(CONFIG, views=2)), tmp_path / "two.safetensors")
    assert ldp.load(str(tmp_path / "two.safetensors"), device="cpu").info.parameters
