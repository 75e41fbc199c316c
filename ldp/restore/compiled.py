"""A network's compiled form: made in the background, kept for the next run, used once it is there.

PyTorch's compiler fuses what is bound by memory, which makes a large network several times as fast
on a GPU, and takes tens of seconds. Until then, and where it fails, the network runs as it is. All
windows are given to the compiled form at one size, so that it is made once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import platformdirs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Run = Callable[[Tensor, Tensor], Tensor]
"""run(views, blur) is a network's call."""
_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
_LEAST_SHARE = 0.5
"""Of the pixels of a full window. Smaller ones cost less in the network as it is than padded."""

_log = logging.getLogger(__name__)


class Compiler(Protocol):
    """Makes the compiled form of a network; what it does may happen at the form's first call."""

    def __call__(self, network: nn.Module) -> Run:
        """Return the compiled form."""


def inductor(network: nn.Module) -> Run:
    """Compile with PyTorch's compiler for one shape, its products kept in the user's cache folder.

    The compiler finds them again by the versions of PyTorch and of the driver, the GPU, the
    operations of the network and the shapes.
    """
    os.environ.setdefault(_FOLDER, str(cache_folder()))
    return cast(Run, torch.compile(network, fullgraph=True, dynamic=False))


def cache_folder() -> Path:
    """Return where compiled networks are kept; TORCHINDUCTOR_CACHE_DIR names another place."""
    given = os.environ.get(_FOLDER)
    return Path(given) if given else platformdirs.user_cache_path("dpbatch", False) / "compiled"


class CompiledNetwork:
    """A network and, as soon as it is there, its compiled form."""

    def __init__(self, network: nn.Module, compiler: Compiler = inductor) -> None:
        """network: in evaluation mode, on its device."""
        self._network = network
        self._compiler = compiler
        self._compiled: Run | None = None
        self._window: tuple[int, int] = (0, 0)
        self._thread: threading.Thread | None = None

    def start(
        self, views: Tensor, blur: Tensor, call: Callable[[Run, Tensor, Tensor], Tensor]
    ) -> None:
        """Begin to compile for inputs of these shapes; once.

        call: call(run, views, blur) makes a network's call as it is made for photos: the compiled
            form holds for a call's surroundings too, such as autocast.
        """
        if self._thread is not None:
            return
        self._thread = threading.Thread(
            target=self._compile, args=(views, blur, call), daemon=True, name="ldp-compile"
        )
        self._thread.start()

    def wait(self) -> bool:
        """Wait until it is compiled or has failed; return whether it is compiled."""
        if self._thread is not None:
            self._thread.join()
        return self._compiled is not None

    def current(self) -> Run:
        """Return what to call for a photo: the same for all of its tiles of a scale."""
        return self._network if self._compiled is None else self._padded

    def _compile(
        self, views: Tensor, blur: Tensor, call: Callable[[Run, Tensor, Tensor], Tensor]
    ) -> None:
        try:
            compiled = self._compiler(self._network)
            views, blur = _uniform(views, blur)
            call(compiled, views, blur)
        # Whatever a compiler and its tools raise, the network itself is there.
        except Exception as error:  # noqa: BLE001
            reason = str(error).partition("\n")[0]
            _log.warning(
                "the network runs without being compiled: %s: %s", type(error).__name__, reason
            )
            return
        self._window = (views.shape[-2], views.shape[-1])
        self._compiled = compiled

    def _padded(self, views: Tensor, blur: Tensor) -> Tensor:
        """Call the compiled form with a window padded to the size that it was made for."""
        height, width = views.shape[-2:]
        down, across = (
            full - side for full, side in zip(self._window, (height, width), strict=True)
        )
        share = height * width / (self._window[0] * self._window[1])
        if min(down, across) < 0 or share < _LEAST_SHARE or self._compiled is None:
            return cast(Tensor, self._network(views, blur))
        if down or across:
            # What is added lies beyond the halo of every pixel that is kept, or beyond the border.
            with torch.inference_mode(False), torch.no_grad():
                if blur.shape[-2:] == views.shape[-2:]:
                    blur = F.pad(blur, (0, across, 0, down), mode="replicate")
                views = F.pad(views, (0, across, 0, down), mode="replicate")
        return self._compiled(*_uniform(views, blur))[..., :height, :width]


def _uniform(views: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inputs with what a compiled network is made for besides shapes.

    That is the order in memory, strides also of sides of length 1, and being no inference tensors.
    """
    with torch.inference_mode(False), torch.no_grad():
        both = []
        for tensor, order in ((views, torch.channels_last), (blur, torch.contiguous_format)):
            own = tensor.clone() if tensor.is_inference() else tensor
            ordered = own.contiguous(memory_format=order)
            strides = torch.empty(tensor.shape, device="meta", memory_format=order).stride()
            both.append(ordered.as_strided(ordered.shape, strides))
    return both[0], both[1]
