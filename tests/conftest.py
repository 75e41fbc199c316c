"""Fixtures of several files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.s3_server import S3Server


@pytest.fixture(scope="session", autouse=True)
def _one_precision() -> Iterator[None]:
    """Networks compute in float32 on every processor; tests of bfloat16 ask for it themselves."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            patch.setattr(torch.cpu, name, lambda: False, raising=False)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    from tests.helpers.s3_server import serving

    with serving() as server:
        yield server


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on this machine do their work in this process; those of their own take time to start."""
    from tests.helpers.inline_engine import InlineEngine

    monkeypatch.setattr("dpbatch.batch.run.LocalEngine", InlineEngine)


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
