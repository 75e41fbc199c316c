import sys
from types import SimpleNamespace

import numpy as np
import pytest

from training.evaluation.perceptual import (
    Perceptual,
    fsim_similarity,
    load_perceptual,
    lpips_distance,
    note_of_missing,
)


@pytest.fixture
def picture():
    return np.random.default_rng(0).random((40, 50, 3))


def test_lpips_is_left_out_where_its_package_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert lpips_distance("alex") is None


def test_lpips_sees_pictures_between_minus_one_and_one(monkeypatch, picture):
    class Fake:
        def __init__(self, net, verbose):
            assert net == "squeeze"

        def __call__(self, restored, truth):
            assert restored.shape == truth.shape == (1, 3, 40, 50)
            return restored.max() - truth.min()

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Fake))
    distance = lpips_distance("squeeze")
    assert distance is not None
    assert distance(np.ones_like(picture), np.zeros_like(picture)) == 2


def test_lpips_of_two_networks_are_two_measures(monkeypatch, picture):
    class Fake:
        def __init__(self, net, verbose):
            self.value = {"alex": 1.0, "squeeze": 2.0}[net]

        def __call__(self, restored, truth):
            return self.value

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Fake))
    both = load_perceptual(("lpips_alex", "lpips_squeeze"))
    assert both.lpips_alex is not None
    assert both.lpips_squeeze is not None
    assert (both.lpips_alex(picture, picture), both.lpips_squeeze(picture, picture)) == (1, 2)
    assert load_perceptual(("lpips_squeeze",)).lpips_alex is None


def test_measures_without_their_package_are_left_out(monkeypatch):
    for name in ("lpips", "piq", "pyiqa"):
        monkeypatch.setitem(sys.modules, name, None)
    names = ("lpips_alex", "lpips_squeeze", "fsim", "musiq", "ckdn")
    assert load_perceptual(names) == Perceptual()
    expected = "not measured: fsim, musiq; pip install piq pyiqa"
    assert note_of_missing(("fsim", "musiq"), Perceptual()) == expected
    assert note_of_missing((), Perceptual()) == ""


def test_measures_that_are_not_named_are_not_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=lambda name: name))
    assert load_perceptual(()) == Perceptual()


def test_fsim_falls_with_distortion_and_clips():
    pytest.importorskip("piq")
    similarity = fsim_similarity()
    assert similarity is not None
    rows, columns = np.mgrid[:64, :64] / 64
    truth = np.stack([0.5 + 0.4 * np.sin(20 * rows * columns)] * 3, 2)
    noise = 0.1 * np.random.default_rng(0).standard_normal(truth.shape)
    assert similarity(truth, truth) == pytest.approx(1, abs=1e-5)
    assert similarity(truth + 2 * noise, truth) < similarity(truth + noise, truth) < 0.99


def test_musiq_sees_the_result_alone_and_ckdn_the_degraded_picture_too(monkeypatch, picture):
    def create_metric(name):
        if name == "musiq":
            return lambda restored: 100 * restored.mean()
        return lambda restored, degraded: restored.max() - degraded.min()

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    measures = load_perceptual(("musiq", "ckdn"))
    assert measures.musiq is not None
    assert measures.ckdn is not None
    assert measures.lpips_alex is None
    assert measures.musiq(np.full((8, 8, 3), 0.25)) == pytest.approx(25)
    # Clipped to what a file would hold.
    assert measures.ckdn(picture + 5, picture - 5) == pytest.approx(1)
    assert isinstance(measures.ckdn(picture, picture), float)
