import json
import struct

import numpy as np
import pytest

from dpbatch.errors import DamagedError, UnreadableError
from dpbatch.tools.inspect import inspect
from tests.helpers.scenes import BLACK, PHOTODIODE_BLACK, WHITE, write_test_dpraw
from training.simulator.cr2.layout import CameraTags
from training.simulator.cr2.writer import write_single_cr2

TAGS = CameraTags(
    orientation=8, exposure_time_s=1 / 250, f_number=1.8, iso=400, serial="0123456789"
)


def test_dual_pixel_file_is_described(tmp_path):
    path = tmp_path / "dual.cr2"
    write_test_dpraw(path, 256, 384, disparity_px=0, highlight=True, tags=TAGS)
    found = inspect(path)
    camera, frames = found.camera, found.frames
    assert found.is_dual_pixel
    assert (found.file, found.format) == ("dual.cr2", "cr2")
    assert (camera.make, camera.model) == ("Canon", TAGS.model)
    assert (camera.lens, camera.serial) == (TAGS.lens_model, TAGS.serial)
    assert (camera.exposure, camera.aperture) == ("1/250 s", "f/1.8")
    assert (camera.iso, camera.focal_length) == ("400", "50 mm")
    assert camera.taken == "2024:05:17 10:42:07"
    assert frames is not None
    assert frames.size == (384 + 160, 256 + 64)
    assert frames.active_size == (384, 256)
    assert frames.active_origin == (148, 54)
    np.testing.assert_allclose(frames.composite_black, BLACK, atol=0.5)
    np.testing.assert_allclose(frames.photodiode_black, PHOTODIODE_BLACK, atol=0.5)
    assert frames.white_level == WHITE
    # The disk's green samples clip: half the samples of a circle of radius 32.
    assert frames.composite_clipped == pytest.approx(np.pi * 32**2 / (384 * 256) / 2, rel=0.1)
    assert frames.photodiode_clipped == 0
    assert frames.photodiode_share == pytest.approx(0.5, abs=0.01)
    assert frames.orientation == 8
    again = json.loads(json.dumps(found.to_dict()))
    assert again["frames"]["active_size"] == [384, 256]
    assert again["camera"]["serial"] == TAGS.serial
    text = found.to_text()
    for part in ("dual pixel", "544 x 320", "384 x 256 at 148, 54", "f/1.8", TAGS.lens_model):
        assert part in text


@pytest.mark.parametrize("claimed", [1_006_641_184, 0xFFFF_FFFF])
def test_a_makernote_that_claims_a_billion_values_costs_no_tag(tmp_path, claimed):
    path = tmp_path / "dual.cr2"
    write_test_dpraw(path, 64, 160, tags=TAGS)
    honest = inspect(path).camera
    content = path.read_bytes()
    entry = content.index(struct.pack("<HH", 0x927C, 7))  # MakerNote, UNDEFINED
    path.write_bytes(content[: entry + 4] + struct.pack("<I", claimed) + content[entry + 8 :])
    assert inspect(path).camera == honest
    assert honest.serial == TAGS.serial


def test_ordinary_raw_is_described_without_frames(tmp_path):
    path = tmp_path / "single.cr2"
    write_single_cr2(path, np.full((256, 384), 1000.0), tags=TAGS)
    found = inspect(path)
    assert not found.is_dual_pixel
    assert found.frames is None
    assert found.camera.model == TAGS.model
    assert "no: one raw frame" in found.to_text()


def test_a_dark_frame_has_no_share(tmp_path):
    path = tmp_path / "dark.cr2"
    write_test_dpraw(path, 256, 384, level_dn=0)
    found = inspect(path)
    assert found.frames is not None
    assert found.frames.photodiode_share is None
    assert json.loads(json.dumps(found.to_dict()))["frames"]["photodiode_share"] is None
    assert "no usable signal" in found.to_text()


def test_what_is_no_raw_is_refused(tmp_path):
    text = tmp_path / "text.cr2"
    text.write_text("this is no raw file at all")
    with pytest.raises(UnreadableError, match=r"text\.cr2"):
        inspect(text)
    whole, cut = tmp_path / "whole.cr2", tmp_path / "cut.cr2"
    write_test_dpraw(whole, 256, 384)
    cut.write_bytes(whole.read_bytes()[:-20_000])
    with pytest.raises(DamagedError, match=r"cut\.cr2"):
        inspect(cut)
