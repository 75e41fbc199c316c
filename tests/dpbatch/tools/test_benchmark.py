from __future__ import annotations

import pytest

from dpbatch.errors import AbortError
from dpbatch.tools.benchmark import run_benchmark


@pytest.mark.slow
def test_every_stage_and_the_memory_are_measured() -> None:
    result = run_benchmark(320, 192, photos=2, model="tiny", device="cpu")
    assert result.photos == 2
    for seconds in (result.load_s, result.restore_s, result.save_s):
        assert 0 < seconds < result.run_s
    # One process holds torch, so this is neither zero nor a sum over many gigabytes.
    assert 0.1 < result.peak_memory_gib < 4


@pytest.mark.slow
def test_a_run_that_fails_is_no_measurement() -> None:
    with pytest.raises(AbortError, match="ended with 3"):
        run_benchmark(320, 192, photos=1, model="tiny", device="cuda:63")
