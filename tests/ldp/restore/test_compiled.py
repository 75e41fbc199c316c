"""A compiled network is used once it is there, for whole photos, and never needed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ldp.models.network import LDPNet
from ldp.restore.compiled import CompiledNetwork, Run, cache_folder
from ldp.restore.deblur import Deblurrer, run_network
from ldp.types import BlurMap, ViewPair
from tests.helpers.scale_networks import MICRO, Adding, Smoothing, deblurrer_of

CPU = torch.device("cpu")
WINDOW = 64 + 2 * 16  # a tile of deblurrer_of with its halo


def views(height: int = 150, width: int = 190) -> ViewPair:
    rng = np.random.default_rng(0)
    left, right = (rng.random((height, width, 3), np.float32) for _ in range(2))
    return ViewPair(left, right)


def flat_map() -> BlurMap:
    return BlurMap(np.full((6, 8), 0.5, np.float32))


class Compiled:
    """Compiles a network to another one, once it may; notes the windows that that one is given."""

    def __init__(self, to: nn.Module) -> None:
        self.to = to
        self.may = threading.Event()
        self.windows: list[tuple[int, ...]] = []

    def __call__(self, network: nn.Module) -> Run:
        self.may.wait()

        def run(given: Tensor, blur: Tensor) -> Tensor:
            self.windows.append(tuple(given.shape))
            result: Tensor = self.to(given, blur)
            return result

        return run


def done(deblurrer: Deblurrer) -> bool:
    assert deblurrer.compiled is not None
    return deblurrer.compiled.wait()


def test_a_photo_that_begins_before_it_is_compiled_is_restored_without_it_to_its_end() -> None:
    compiler = Compiled(Adding(0.25))
    deblurrer = deblurrer_of(Adding(0.125)).compiling(compiler)
    mean = (views().left + views().right) / 2

    def let_it_compile(tiles_done: int, tiles: int) -> None:
        compiler.may.set()
        assert done(deblurrer)

    first = deblurrer.restore(views(), flat_map(), let_it_compile)
    np.testing.assert_allclose(first, mean + 0.125, atol=1e-6)
    second = deblurrer.restore(views(), flat_map())
    np.testing.assert_allclose(second[:64, :64], mean[:64, :64] + 0.25, atol=1e-6)


def test_windows_are_padded_to_one_shape_and_the_result_is_the_networks_own() -> None:
    compiler = Compiled(Smoothing())
    compiler.may.set()
    plain = deblurrer_of(Smoothing())
    deblurrer = plain.compiling(compiler)
    assert done(deblurrer)
    np.testing.assert_array_equal(
        deblurrer.restore(views(), flat_map()), plain.restore(views(), flat_map())
    )
    assert len(compiler.windows) > 4
    assert set(compiler.windows) == {(1, 6, WINDOW, WINDOW)}


class LittleMemory(Adding):
    """Adding on a device that, once `full`, holds no window of more than 200 px."""

    full = False

    def forward(self, views: Tensor, blur: Tensor) -> Tensor:
        if self.full and max(views.shape[-2:]) > 200:
            raise torch.OutOfMemoryError
        return super().forward(views, blur)


def test_tiles_that_are_halved_for_memory_have_smaller_windows() -> None:
    network = LittleMemory(0.125)
    compiler = Compiled(network)
    compiler.may.set()
    deblurrer = deblurrer_of(network, tile_px=256).compiling(compiler)
    assert done(deblurrer)
    network.full = True
    photo = views(300, 500)
    restored = deblurrer.restore(photo, flat_map())
    np.testing.assert_allclose(restored, (photo.left + photo.right) / 2 + 0.125, atol=1e-6)


def test_a_window_much_smaller_is_not_padded() -> None:
    compiler = Compiled(Adding(0.25))
    compiler.may.set()
    deblurrer = deblurrer_of(Adding(0.125)).compiling(compiler)
    assert done(deblurrer)
    small = views(16, 16)
    restored = deblurrer.restore(small, flat_map())
    np.testing.assert_allclose(restored, (small.left + small.right) / 2 + 0.125, atol=1e-6)


def test_a_compiler_that_fails_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def no_compiler(network: nn.Module) -> Run:
        raise FileNotFoundError("gcc\nand a long story")

    with caplog.at_level(logging.WARNING):
        deblurrer = deblurrer_of(Adding(0.125)).compiling(no_compiler)
        assert not done(deblurrer)
    (record,) = caplog.records
    assert record.getMessage().endswith("FileNotFoundError: gcc")
    restored = deblurrer.restore(views(), flat_map())
    np.testing.assert_allclose(restored, (views().left + views().right) / 2 + 0.125, atol=1e-6)


def test_a_form_that_fails_when_it_is_first_called_is_not_used() -> None:
    def failing(network: nn.Module) -> Run:
        def run(given: Tensor, blur: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return run

    deblurrer = deblurrer_of(Adding(0.125)).compiling(failing)
    assert not done(deblurrer)
    deblurrer.restore(views(), flat_map())


def test_products_are_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    assert cache_folder().parts[-2:] == ("dpbatch", "compiled")


@pytest.mark.slow
def test_what_a_thread_compiled_is_used_by_another_without_compiling_again() -> None:
    """With PyTorch's own tracing, whose guards hold for what surrounds a call."""
    torch.manual_seed(0)
    network = LDPNet(MICRO).eval()
    plain = Deblurrer.of(network, CPU, 128)
    deblurrer = plain.compiling(
        lambda traced: torch.compile(traced, backend="eager", fullgraph=True, dynamic=False)
    )
    assert done(deblurrer)
    with torch.compiler.set_stance("fail_on_recompile"):
        restored = deblurrer.restore(views(), flat_map())
    np.testing.assert_allclose(restored, plain.restore(views(), flat_map()), atol=0.01)


@pytest.mark.slow
def test_the_next_run_finds_what_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = pytest.importorskip("torch._dynamo.utils").counters
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    given = torch.rand(1, 6, 64, 64), torch.rand(1, 1, 64, 64)
    results = []
    for run in range(2):
        torch.compiler.reset()
        counters.clear()
        torch.manual_seed(0)
        network = LDPNet(MICRO).eval()
        expected = run_network(network, *given, precision=torch.float32)
        compiled = CompiledNetwork(network)
        compiled.start(
            *given, lambda call, one, two: run_network(call, one, two, precision=torch.float32)
        )
        if not compiled.wait():
            pytest.skip("no C++ compiler")
        found = (
            counters["inductor"]["fxgraph_cache_hit"]
            + counters["aot_autograd"]["autograd_cache_hit"]
        )
        assert (found > 0) == (run > 0)
        results.append(run_network(compiled.current(), *given, precision=torch.float32))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    torch.testing.assert_close(results[0], expected, rtol=0, atol=1e-4)
