import sys

import cv2
import numpy as np
import pytest

from ldp.srgb import encode_srgb
from training.evaluation.kernels import (
    KernelEstimate,
    estimate_kernels,
    fit_family,
    kernel_sheet,
    main,
    simulated_estimate,
)
from training.simulator.optics import KernelShape, view_disparity_px, view_kernels

WINDOWS = [(16, 16, 96)]


@pytest.fixture(scope="module")
def sharp():
    """Texture at every scale, linear light."""
    rng = np.random.default_rng(0)
    picture = sum(
        cv2.resize(rng.random((128 // s, 128 // s, 3)), (128, 128), interpolation=cv2.INTER_CUBIC)
        for s in (1, 2, 4, 16)
    )
    return np.asarray(np.clip(picture / 4, 0, 1), np.float32)


def blurred(sharp, radius, shape, noise=0.0):
    rng = np.random.default_rng(1)
    return [
        cv2.filter2D(sharp, -1, np.ascontiguousarray(kernel[::-1, ::-1]))
        + np.float32(noise) * rng.standard_normal(sharp.shape, np.float32)
        for kernel in view_kernels(radius, shape)
    ]


@pytest.mark.parametrize(
    ("radius", "shape"),
    [
        (4.0, KernelShape(ramp=0.4, rim=0.7)),
        (-4.5, KernelShape(ramp=1.1, rim=1.5, softness_px=0.6)),
        (-2.2, KernelShape(ramp=0.4, rim=0.0, softness_px=0.4)),
    ],
)
def test_a_known_kernel_is_found_again(sharp, radius, shape):
    left, right = blurred(sharp, radius, shape, noise=0.001)
    estimate = estimate_kernels(sharp, left, right, WINDOWS, side_px=17)
    assert estimate.r_squared_left > 0.98
    assert estimate.r_squared_right > 0.98
    fitted = fit_family(estimate)
    assert fitted.radius_px == pytest.approx(radius, abs=0.15)
    assert fitted.distance_px == pytest.approx(view_disparity_px(radius, shape), abs=0.15)
    assert fitted.distance_share == pytest.approx(fitted.distance_px / fitted.radius_px)
    assert fitted.shape.ramp == pytest.approx(shape.ramp, abs=0.2)


def test_kernels_come_out_as_a_point_looks_not_turned_around(sharp):
    kernel = np.zeros((9, 9), np.float32)
    kernel[4, 4], kernel[1, 6] = 0.7, 0.3
    view = cv2.filter2D(sharp, -1, np.ascontiguousarray(kernel[::-1, ::-1])).astype(np.float32)
    estimate = estimate_kernels(sharp, view, view, WINDOWS, side_px=9, ridge=1e-6)
    np.testing.assert_allclose(estimate.left, kernel, atol=0.01)
    np.testing.assert_array_equal(estimate.left, estimate.right)


def test_a_shift_between_the_sharp_and_the_blurred_picture_is_no_disparity(sharp):
    shape = KernelShape(ramp=0.8)
    left, right = blurred(sharp, 3.0, shape)
    moved = np.roll(sharp, (1, 2), (0, 1))
    found = fit_family(estimate_kernels(moved, left, right, WINDOWS, side_px=17))
    assert found.distance_px == pytest.approx(view_disparity_px(3.0, shape), abs=0.15)
    assert found.radius_px == pytest.approx(3.0, abs=0.15)


def test_the_simulated_estimate_repeats_the_measured_one(sharp):
    left, right = blurred(sharp, 3.5, KernelShape(ramp=0.9, rim=1.0), noise=0.002)
    measured = estimate_kernels(sharp, left, right, WINDOWS, side_px=15)
    fitted = fit_family(measured)
    again = simulated_estimate(sharp, WINDOWS, fitted, measured.residual, side_px=15)
    assert measured.residual == pytest.approx(0.002, rel=0.1)
    assert again.r_squared_left == pytest.approx(measured.r_squared_left, abs=0.01)
    assert fit_family(again).radius_px == pytest.approx(fitted.radius_px, abs=0.1)


def test_pictures_that_do_not_belong_together_explain_little(sharp):
    other = np.ascontiguousarray(sharp[::-1])
    estimate = estimate_kernels(sharp, other, other, WINDOWS, side_px=7)
    assert estimate.r_squared_left < 0.3


def test_a_window_must_lie_inside(sharp):
    with pytest.raises(ValueError, match="window 4,16,96: must lie in the 128x128 picture with 8"):
        estimate_kernels(sharp, sharp, sharp, [(4, 16, 96)], side_px=17)


def test_the_sheet_shows_left_and_right_beside_each_other():
    left, right = np.zeros((2, 5, 5))
    left[2, 1], right[2, 3] = 0.5, 0.2
    sheet = kernel_sheet([KernelEstimate(left, right, 1, 1, 0)] * 2, zoom=2)
    assert sheet.shape == (20, 20)
    assert sheet[4, 2] == sheet[4, 16] == 255
    assert sheet[4, 4] == 0


def test_the_command_prints_the_measured_and_the_simulated_kernel(
    tmp_path, sharp, monkeypatch, capsys
):
    for name, linear in zip(
        "slr", (sharp, *blurred(sharp, 3.0, KernelShape(ramp=0.8))), strict=True
    ):
        levels = np.clip(encode_srgb(np.ascontiguousarray(linear)), 0, 1) * 65535
        cv2.imwrite(str(tmp_path / f"{name}.png"), levels.astype(np.uint16)[..., ::-1])
    files = [str(tmp_path / f"{name}.png") for name in "slr"]
    options = ["--window", "16,16,96", "--side", "13", "--picture", str(tmp_path / "k.png")]
    monkeypatch.setattr(sys, "argv", ["estimate_kernels", *files, *options])
    main()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:]] == ["measured", "simulated"]
    assert float(printed[1].split()[3]) == pytest.approx(3.0, abs=0.15)
    assert (tmp_path / "k.png").is_file()
