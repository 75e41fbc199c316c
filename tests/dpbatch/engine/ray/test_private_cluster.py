"""The cluster that the program starts itself is of no use to other machines and other users."""

from __future__ import annotations

import ipaddress
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ray = pytest.importorskip("ray")

from dpbatch.engine.ray import private_cluster as private  # noqa: E402
from dpbatch.engine.ray.cluster import joined  # noqa: E402
from dpbatch.engine.ray.private_cluster import accepts_calls, check_private  # noqa: E402
from dpbatch.errors import AbortError  # noqa: E402


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder that only this test uses: a socket's path must be short, and tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


def listening() -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses on which this process and its children accept connections."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = []
    for process in processes:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                address = ipaddress.ip_address(connection.laddr.ip)
                found.append(getattr(address, "ipv4_mapped", None) or address)
    return found


def sockets_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_socket()]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_it_listens_on_loopback_only_asks_for_its_token_and_hides_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_folder: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with joined("", tmp_path / "log"):
        assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
        addresses = listening()
        assert len(addresses) > 3
        assert [address for address in addresses if not address.is_loopback] == []

        address = ray.get_runtime_context().gcs_address
        assert not accepts_calls(address, token=None)
        assert not accepts_calls(address, token="0" * 64)
        assert accepts_calls(address, token=os.environ["RAY_AUTH_TOKEN"])  # so the call is right

        (folder,) = short_folder.glob("dpbatch-ray-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(sockets_of(folder)) >= 2
        monkeypatch.setattr(private, "accepts_calls", lambda address, token: token is None)
        with pytest.raises(AbortError, match="accepts calls without its token"):
            check_private(folder)
        folder.chmod(0o755)
        monkeypatch.setattr(private, "accepts_calls", lambda address, token: False)
        with pytest.raises(AbortError, match="other users can enter"):
            check_private(folder)
    assert not folder.exists()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize("mode", ["disabled", "token", None])
def test_ray_is_left_to_turn_its_token_on_whatever_was_set(
    monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with private.private_cluster():
        assert "RAY_AUTH_MODE" not in os.environ
    assert os.environ.get("RAY_AUTH_MODE") == mode


def test_a_cluster_that_other_machines_reach_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Context:
        gcs_address = "192.0.2.7:6379"

    monkeypatch.setattr(ray, "get_runtime_context", Context)
    with pytest.raises(AbortError, match=r"not private: it listens on 192\.0\.2\.7.*--address"):
        check_private(tmp_path)


def test_the_folder_is_new_private_and_short_enough_for_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    token = os.environ.get("RAY_AUTH_TOKEN")
    with private.private_cluster() as folder:
        assert list(folder.iterdir()) == []
        assert len(os.fsencode(folder)) <= 40
        if os.name != "nt":
            assert folder.stat().st_mode & 0o777 == 0o700
        assert os.environ["RAY_AUTH_TOKEN"] != token
    assert not folder.exists()
    assert os.environ.get("RAY_AUTH_TOKEN") == token


@pytest.mark.slow
def test_the_same_process_can_join_a_cluster_without_a_token_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its actors on other nodes call this process without one."""
    from ray.cluster_utils import Cluster

    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # a socket's path must be short
    with joined("", tmp_path / "log"):
        assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)

        @ray.remote(num_cpus=1)
        class Actor:
            def answer(self) -> int:
                return 42

        actor = Actor.remote()  # type: ignore[attr-defined]
        assert ray.get(actor.answer.remote(), timeout=90) == 42
    finally:
        ray.shutdown()
        cluster.shutdown()
