"""Joining a cluster: what Ray raises then reaches people as one message."""

import pytest
import ray

from dpbatch.engine.ray.cluster import joined
from dpbatch.errors import AbortError


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "a Ray cluster of this machine could not be started: the node timed out"),
        ("192.0.2.1:6379", "no Ray cluster at 192.0.2.1:6379: the node timed out"),
    ],
)
@pytest.mark.parametrize("kind", [Exception, ConnectionError, RuntimeError])
def test_a_cluster_that_does_not_come_up_ends_the_run_with_a_message(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], address: str, message: str
) -> None:
    def init(**_: object) -> None:
        raise kind("the node timed out")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(AbortError, match=message), joined(address, None):
        pytest.fail("nothing was joined")
