"""Ray does not wait for the processes that it starts; Python warns when it collects them."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore the warning in this folder's tests: the next one that starts a cluster gets it."""
    ignored = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(ignored)


@pytest.fixture(autouse=True, scope="session")
def _collect_processes() -> Iterator[None]:
    """Collect those of the last cluster."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
