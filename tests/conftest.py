"""Fixtures of several files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.s3_server import S3Server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    from tests.helpers.s3_server import serving

    with serving() as server:
        yield server


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The size "micro" is known, and the number of threads comes back."""
    import torch

    from ldp.models.network import SIZES
    from tests.helpers.micro_run import MICRO

    monkeypatch.setitem(SIZES, "micro", MICRO)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photographs to train on."""
    from tests.helpers.micro_run import write_photo

    return write_photo(tmp_path / "photos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the test that starts a private Ray cluster in this process after all others.

    Ray keeps the cluster's loopback address for the life of the process, and actors of a cluster
    of several nodes that a later test starts would die before they run.
    """
    items.sort(key=lambda item: item.name == "test_a_run_goes_on_once_there_is_room[ray]")
