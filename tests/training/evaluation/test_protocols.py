import math

import numpy as np
import pytest
import torch

import ldp
from ldp.blur.disparity import DisparityEstimator
from ldp.errors import WeightsError
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.released import LDPReleased, ReleasedConfig
from ldp.models.vitdeblur import ViTDeblur, ViTDeblurConfig
from ldp.models.weights import load_network, save_network
from ldp.restore.windows import WindowSettings
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import ViewPair, as_float
from training.evaluation.perceptual import Perceptual
from training.evaluation.protocols import PROTOCOLS, load_restorer, mean_scores, picture_scores

MICRO = NetworkConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1), shuffle=2, crop_px=64)

ONE_PICTURE = ViTDeblurConfig(
    window_px=40, width=8, primary_heads=1, contextual_heads=2, decoder_width=8, decoder_heads=1
)


@pytest.fixture
def truth():
    return np.random.default_rng(0).random((24, 30, 3))


def scored(picture, truth, protocol):
    return picture_scores(picture, truth, np.clip(truth + 0.1, 0, 1), PROTOCOLS[protocol])


def test_only_dpdnets_protocol_counts_what_lies_outside_of_black_and_white():
    truth = np.ones((24, 30, 3))
    beyond = truth + 0.1
    assert scored(beyond, truth, "restormer").psnr_db == math.inf
    assert scored(beyond, truth, "8bit").psnr_db == math.inf
    assert scored(beyond, truth, "dpdnet").psnr_db == pytest.approx(20)


def test_only_the_8_bit_protocol_rounds(truth):
    truth = np.rint(truth * 255) / 255
    near = np.clip(truth + 0.4 / 255, 0, 1)
    assert scored(near, truth, "8bit").mae == 0
    assert scored(near, truth, "restormer").mae == pytest.approx(0.4 / 255, rel=0.02)
    rounded = PROTOCOLS["8bit"].prepared(truth + 0.4 / 255) * 255
    np.testing.assert_allclose(rounded, np.rint(rounded), atol=1e-9)


def test_inside_black_and_white_the_16_bit_protocols_agree(truth):
    picture = 0.5 + 0.4 * (truth - 0.5)
    assert scored(picture, truth, "restormer") == scored(picture, truth, "dpdnet")


def test_the_average_is_that_of_the_figures_not_of_the_pictures(truth):
    scores = [scored(truth * gain, truth, "restormer") for gain in (0.5, 0.9)]
    average = mean_scores(scores)
    assert average.psnr_db == pytest.approx((scores[0].psnr_db + scores[1].psnr_db) / 2)
    # The tables of papers have the RMSE of the average PSNR.
    assert average.rmse == pytest.approx(10 ** (-average.psnr_db / 20))
    assert scores[0].rmse == pytest.approx(10 ** (-scores[0].psnr_db / 20))
    assert average.lpips_alex is None


def test_lpips_is_measured_on_the_prepared_pictures(truth):
    def distance(restored, wanted):
        assert restored.max() <= 1
        return float(np.abs(restored - wanted).max())

    score = picture_scores(
        truth + 5, truth, truth, PROTOCOLS["restormer"], Perceptual(lpips_alex=distance)
    )
    assert score.lpips_alex == pytest.approx(1 - truth.min())
    assert mean_scores([score, score]).lpips_alex == pytest.approx(score.lpips_alex)


def test_a_restorer_does_what_users_run(tmp_path, truth):
    torch.manual_seed(0)
    weights = tmp_path / "micro.safetensors"
    save_network(LDPNet(MICRO), weights)
    left, right = ((truth * 60000 + offset).astype(np.uint16) for offset in (0, 900))
    views = ViewPair(left, right)
    restored = load_restorer(str(weights), "cpu")(views)
    model = ldp.Model(load_network(weights), device="cpu", estimator=DisparityEstimator())
    np.testing.assert_array_equal(restored, model.restore(views).to_uint16())


def test_a_restorer_keeps_every_change_where_it_is_told_so(tmp_path, truth):
    torch.manual_seed(0)
    weights = tmp_path / "micro.safetensors"
    save_network(LDPNet(MICRO), weights)
    view = (truth * 60000).astype(np.uint16)
    in_focus = ViewPair(view, view)
    bare, kept = (load_restorer(str(weights), "cpu", protect=x)(in_focus) for x in (False, True))
    np.testing.assert_array_equal(kept, view)
    model = ldp.Model(load_network(weights), device="cpu", protect=False)
    np.testing.assert_array_equal(bare, model.restore_uint16(in_focus).sharp)
    assert not np.array_equal(bare, view)


def test_a_restorer_does_what_the_networks_authors_run_where_it_is_told_so(tmp_path, truth):
    torch.manual_seed(0)
    config = ReleasedConfig(width=8, encoder=(1,), middle=1, decoder=(1,), crop_px=16)
    network = LDPReleased(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    path = tmp_path / "released.safetensors"
    save_network(network, path, {"blur_map": "clip-patch"}, half=False)
    views = ViewPair(*((truth * 60000 + offset).astype(np.uint16) for offset in (0, 900)))
    tiled, whole = (
        load_restorer(str(path), "cpu", blur="disparity", whole=whole)(views)
        for whole in (False, True)
    )
    model = ldp.Model(network.eval(), device="cpu", whole=True)
    np.testing.assert_array_equal(whole, model.restore_uint16(views).sharp)
    assert not np.array_equal(whole, tiled)


def test_missing_weights_are_an_error():
    with pytest.raises(WeightsError, match="no such network"):
        load_restorer("nothing-of-that-name")


def test_a_network_of_single_pictures_is_given_the_composite(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "v.safetensors"
    save_network(ViTDeblur(ONE_PICTURE), path, half=False)
    rng = np.random.default_rng(0)
    views = ViewPair(*rng.integers(0, 65536, (2, 60, 80, 3)).astype(np.uint16))
    settings = WindowSettings(stride_px=10, blending="smooth", padding="reflect")
    found = load_restorer(str(path), "cpu", windows=settings)(views)
    left, right = (decode_srgb(as_float(view).copy()) for view in (views.left, views.right))
    mean = encode_srgb((left + right) / np.float32(2))
    model = ldp.load_single(
        str(path), device="cpu", window_stride=10, blending="smooth", padding="reflect"
    )
    np.testing.assert_allclose(found, model.restore_uint16(mean).astype(int), atol=1)
    assert found.std() > 100
