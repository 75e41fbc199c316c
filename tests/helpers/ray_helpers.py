"""Runs of toy stages on Ray, seen from outside."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.toy_runs import REPOSITORY, journal_text

# Ray's workers unpickle stages of `tests`, wherever pytest was started.
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY)}
LONGEST_S = 120
"""The longest wait for a cluster: its processes take seconds to start, one after the other."""


@contextmanager
def one_node(processors: int, **settings: Any) -> Iterator[None]:
    """A cluster of this machine that this process joins; its number of processors is made up."""
    import ray
    from ray._private.authentication_test_utils import reset_auth_token_state

    reset_auth_token_state()  # or that of an earlier cluster of this process is kept
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        ray.init(
            "local",
            num_cpus=processors,
            include_dashboard=False,
            object_store_memory=200 << 20,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **settings,
        )
        yield
        ray.shutdown()


def start_ray_run(
    shoot: Path, out: Path, address: str, actors: int, save_s: float
) -> subprocess.Popen[str]:
    """See `ray_run`; its process leads a group of its own."""
    arguments = [str(shoot), str(out), address, str(actors), str(save_s)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.ray_run", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def records(out: Path) -> list[dict[str, Any]]:
    lines = journal_text(out).splitlines()
    return [record for record in map(parsed, lines) if "target" in record]


def parsed(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}  # torn by the kill


def count_done(out: Path) -> int:
    return sum(record["status"] == "done" for record in records(out))
