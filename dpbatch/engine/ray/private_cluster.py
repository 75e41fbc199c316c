"""A cluster of this machine alone, which nobody else can use.

Ray runs whatever code reaches its ports. The cluster that dpbatch starts itself therefore listens
on the loopback interface only, accepts only calls with a token that this process makes, and keeps
its sockets and logs in a folder of this user. `check_private` tests all three on the running
cluster, instead of relying on the defaults of the Ray that happens to be installed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import ray

from dpbatch.errors import AbortError

_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_MOST_PATH_BYTES = 40
"""Of the folder: a socket's whole path may have 107 bytes, and Ray's part has 63."""
_NODES_CALL = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
_CALL_TIMEOUT_S = 10.0


@contextlib.contextmanager
def private_cluster() -> Iterator[Path]:
    """Prepare this process to start a private cluster; gives the cluster's folder.

    `ray.init` starts it with `init_arguments(folder)`.

    The environment of this process is changed while the context is open: the processes of the
    cluster inherit it. The cluster must have ended before the context closes; its folder is removed
    then, and this process may join other clusters.
    """
    from ray._private import ray_constants

    folder = _private_folder()
    changes = {
        "RAY_AUTH_MODE": None,  # unset, ray.init turns the token on, whatever was set before
        "RAY_AUTH_TOKEN": _token(),
        "RAY_AUTH_TOKEN_PATH": None,
        _LOOPBACK: "0",
    }
    before = {name: os.environ.get(name) for name in changes}
    # Ray reads the variable when it is imported, and this constant when a node starts.
    could_join = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    try:
        _set_environment(changes)
        ray_constants.ENABLE_RAY_CLUSTER = False
        _forget_tokens()
        yield folder
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = could_join
        _set_environment(before)
        _forget_tokens()
        _read_environment_again()
        shutil.rmtree(folder, ignore_errors=True)


def init_arguments(folder: Path) -> dict[str, Any]:
    """Return the arguments of `ray.init` for a private cluster in `folder`."""
    # Ray opens its own folder to all users, so it gets one inside ours.
    return {"address": "local", "include_dashboard": False, "_temp_dir": str(folder / "ray")}


def check_private(folder: Path) -> None:
    """Check the cluster that this process has started. folder: from `private_cluster`.

    Raises AbortError where another machine or another user could use it.
    """
    address = ray.get_runtime_context().gcs_address
    host = address.rpartition(":")[0].strip("[]")
    if not ipaddress.ip_address(host).is_loopback:
        _refuse(f"it listens on {host}, expected the loopback interface")
    if accepts_calls(address, token=None) or accepts_calls(address, token=secrets.token_hex(16)):
        _refuse("it accepts calls without its token")
    if os.name != "nt":
        status = folder.stat()
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            _refuse(f"other users can enter its folder {folder}")
    if not any(folder.glob("ray/session_*/sockets/*")):
        _refuse(f"its sockets are not in {folder}")


def accepts_calls(address: str, token: str | None) -> bool:
    """Whether the control service at HOST:PORT answers a call that carries the token, or none."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(_NODES_CALL)
        try:
            call(b"", metadata=metadata, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            return bool(error.code() is not grpc.StatusCode.UNAUTHENTICATED)
    return True


def _refuse(reason: str) -> None:
    raise AbortError(
        f"the Ray cluster that dpbatch started is not private: {reason}; update Ray "
        f"({ray.__version__} is installed), or start a cluster yourself and name it with --address"
    )


@cache
def _token() -> str:
    """Return the token of all clusters that this process starts."""
    return secrets.token_hex(32)


def _forget_tokens() -> None:
    """Make Ray read the token again: it keeps that of an earlier cluster of this process."""
    from ray import _raylet

    loader = getattr(_raylet, "AuthenticationTokenLoader", None)
    if loader is not None:
        loader.instance().reset_cache()


def _read_environment_again() -> None:
    """Make Ray's core read whether calls carry a token; ray.init had turned that on for good.

    It would refuse the calls of a later cluster that has no token, whose actors then never start.
    """
    from ray import _raylet

    config = getattr(_raylet, "Config", None)
    if config is not None:
        config.initialize("")


def _private_folder() -> Path:
    """Make an empty folder that only this user can enter, with a path short enough for sockets."""
    parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(parent)) + len("/dpbatch-ray-12345678/ray") > _MOST_PATH_BYTES:
        parent = "/tmp" if os.name != "nt" else parent
    return Path(tempfile.mkdtemp(prefix="dpbatch-ray-", dir=parent))


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
