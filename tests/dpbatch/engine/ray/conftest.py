"""What all tests with a cluster need."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _collect_rays_processes() -> Iterator[None]:
    """Collect the processes that Ray starts and never waits for, before they fail a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
