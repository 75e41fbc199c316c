"""Which engine a run takes, and whether a node has all that it needs.

`problem_here` runs on every node of a cluster before the first photo: a path that only one machine
knows, or a folder of the same name on a disk of its own, would fail thousands of photos one by one.
Nothing here imports Ray.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dpbatch import __version__
from dpbatch.errors import AbortError, SettingsError
from dpbatch.settings import Settings
from dpbatch.storage.stamps import FOLDER
from dpbatch.storage.urls import location, url_of
from dpbatch.types import ClusterOptions

ENGINES = ("auto", "local", "ray")

_INSTALL = "pip install 'ray[default]'"
_DEVICES = Path("/dev")
_SHM = Path("/dev/shm")
_ENOUGH_SHM_BYTES = 2 << 30


def choose(
    engine: str, options: ClusterOptions, device: str, note: Callable[[str], None]
) -> ClusterOptions | None:
    """The options where Ray is to be the engine, None for the local one.

    engine: of ENGINES; auto takes Ray where a cluster is named or this machine has several GPUs.
    device: what the user wants to compute on. note: told of a GPU that will lie idle.
    Raises SettingsError where Ray is wanted and not installed, or ruled out by the rest.
    """
    address = options.address or os.environ.get("RAY_ADDRESS", "")
    asks_for_ray = bool(options.address or options.cpu_actors) or options.gpus_per_actor != 1.0
    if engine == "local":
        if asks_for_ray:
            raise SettingsError(
                "--address, --gpus-per-actor and --cpu-actors belong to --engine ray"
            )
        return None
    is_installed = importlib.util.find_spec("ray") is not None
    if engine == "ray" or asks_for_ray or address:
        if address.startswith("ray://"):
            raise SettingsError(
                f"--address {address}: Ray Client is not enough; give HOST:6379 from one of the "
                "cluster's machines, or hand the command to `ray job submit`"
            )
        if not is_installed:
            raise SettingsError(f"--engine ray needs Ray; install it with {_INSTALL}")
        return options
    gpus = gpu_count() if device == "auto" else 0
    if gpus >= 2 and not is_installed:
        note(f"{gpus} GPUs, and one will be used; {_INSTALL} lets dpbatch use all of them")
    return options if gpus >= 2 and is_installed else None


def gpu_count() -> int:
    """GPUs of this machine that PyTorch may use, found without importing it; 0 beside Linux."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        names = os.listdir(_DEVICES)  # noqa: PTH208  (names are all that is needed)
    except OSError:
        return 0
    return sum(re.fullmatch(r"nvidia\d+", name) is not None for name in names)


def found_from_anywhere(settings: Settings) -> Settings:
    """The settings with weights named by their whole paths: nodes work in folders of their own."""
    from ldp.models.weights import shipped_names

    restore = settings.restore
    if restore.model not in shipped_names():
        restore = replace(restore, model=os.path.abspath(restore.model))  # noqa: PTH100
    if Path(restore.clip_weights).is_file():
        restore = replace(restore, clip_weights=os.path.abspath(restore.clip_weights))  # noqa: PTH100
    return replace(settings, restore=restore)


@dataclass(frozen=True)
class Needs:
    """What every node must see.

    inputs: files and folders; the size of a file must be the same everywhere. out: the output
    folder, on storage that all nodes share. model: the network's name or weights file, "" where
    none is needed. Any of them may be on object storage, which every node reaches by itself.
    """

    inputs: tuple[Path, ...]
    out: Path
    model: str = ""


@dataclass(frozen=True)
class _Sizes:
    """What the driver sees; a node must see the same."""

    needs: Needs
    version: str
    token: Path | None
    input_bytes: tuple[int, ...]
    """-1 for a folder."""
    weights_sha256: str
    remote_inputs: tuple[Path, ...]


@contextmanager
def node_check(needs: Needs) -> Iterator[Callable[[], str]]:
    """Gives a function to run on every node: it returns what is wrong there, "" where all is well.

    While the block lasts a small file lies in the output folder, which every node must find.
    Raises AbortError where this machine itself cannot.
    """
    remote = tuple(path for path in needs.inputs if url_of(path) is not None)
    needs = replace(needs, inputs=tuple(path for path in needs.inputs if url_of(path) is None))
    token = None
    if url_of(needs.out) is None:
        token = needs.out / FOLDER / f"probe-{secrets.token_hex(8)}"
    try:
        if token is not None:
            token.parent.mkdir(parents=True, exist_ok=True)
            token.touch()
        input_bytes = tuple(_input_bytes(needs.inputs))
    except OSError as error:
        raise AbortError(f"{error.filename}: {error.strerror}") from error
    try:
        weights = _weights_sha256(needs.model)
        sizes = _Sizes(needs, __version__, token, input_bytes, weights, remote)
        yield partial(problem_here, sizes)
    finally:
        if token is not None:
            with suppress(OSError):
                token.unlink()


def problem_here(sizes: _Sizes) -> str:
    """What this machine lacks of what the driver's has, naming the path; "" where nothing."""
    needs = sizes.needs
    if __version__ != sizes.version:
        return f"has dpbatch {__version__}, the driver {sizes.version}; install the same"
    for path, size in zip(needs.inputs, sizes.input_bytes, strict=True):
        try:
            here = next(_input_bytes((path,)))
            if path.is_dir():
                os.listdir(path)  # noqa: PTH208  (the first entry is enough, and it may be none)
        except OSError as error:
            return f"cannot read the input {path}: {error.strerror}"
        if here != size:
            return f"sees another file than the driver at {path}; expected a shared folder"
    return (
        _output_problem(needs.out, sizes.token)
        or _remote_problem(sizes.remote_inputs, needs.out)
        or _weights_problem(needs.model, sizes.weights_sha256)
    )


def _output_problem(out: Path, token: Path | None) -> str:
    if token is None:
        return ""
    if not token.exists():
        return (
            f"does not see the driver's output folder {location(out)}; expected a folder that all "
            "nodes share, or object storage"
        )
    try:
        with tempfile.TemporaryFile(dir=token.parent):
            return ""
    except OSError as error:
        return f"cannot write the output folder {location(out)}: {error.strerror}"


def _remote_problem(inputs: tuple[Path, ...], out: Path) -> str:
    if not inputs and url_of(out) is None:
        return ""
    from dpbatch.storage.reach import problem_here as remote_problem_here

    return remote_problem_here(inputs, out)


def _weights_problem(model: str, sha256: str) -> str:
    try:
        found = _weights_sha256(model)
    except AbortError as error:
        return str(error)
    return "" if found == sha256 else f"has other weights than the driver for {model}"


def _weights_sha256(model: str) -> str:
    if not model:
        return ""
    from ldp.errors import WeightsError
    from ldp.models.weights import resolve, sha256

    try:
        return sha256(resolve(model))
    except WeightsError as error:
        raise AbortError(f"cannot read the weights: {error}") from error
    except OSError as error:
        raise AbortError(f"cannot read the weights {model}: {error.strerror}") from error


def _input_bytes(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        yield -1 if path.is_dir() else path.stat().st_size


def small_shared_memory() -> str:
    """A warning where /dev/shm is so small that photos would go over the disk; else ""."""
    try:
        status = os.statvfs(_SHM)
    except (OSError, AttributeError):
        return ""
    size = status.f_frsize * status.f_blocks
    if size >= _ENOUGH_SHM_BYTES:
        return ""
    return (
        f"/dev/shm holds only {size / 2**30:.2f} GiB, so photos pass over the disk; "
        "give a container more with --shm-size"
    )
