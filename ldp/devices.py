"""The device that a network runs on, and the type of its matrix products there."""

from __future__ import annotations

import ctypes
import sys

import torch

from ldp.errors import DeviceError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
_LARGEST_BLOCK = 1 << 30
_REFUSED = ("can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""In a RuntimeError: of PyTorch's allocator for the CPU, and of cuDNN and cuBLAS."""
DEVICE_TYPES = ("cpu", "cuda")


def choose_device(device: str) -> torch.device:
    """Return the device of a name.

    device: auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N.

    Raises DeviceError, a ValueError, for any other name and for a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise _unknown(device) from error
    if chosen.type not in DEVICE_TYPES:
        raise _unknown(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {device!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices; expected "
            "another device, or a driver and a CUDA build of PyTorch"
        )
    return chosen


def choose_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it faster than float32, else float32.

    That is CUDA, and CPUs with AMX or with AVX-512's bfloat16 instructions. On a Xeon with AMX,
    `tiny` restores a tile of 768 px with its halo about 1.6 times as fast in bfloat16 autocast as
    in float32 (one thread, both in one run); on an EPYC with the AVX-512 instructions a tile of
    512 px 1.4 times and more (docs/speed.md). On real photos the two results agree to more than
    60 dB PSNR, far closer than either comes to the true picture. A training step of `tiny` takes
    0.69 s instead of 1.04 on such an EPYC.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Private in PyTorch 2.11 to 2.15, so they may go; without an answer float32 is safe.
        fast = any(
            getattr(torch.cpu, name, lambda: False)()
            for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        )
    return torch.bfloat16 if fast else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory is too small.

    PyTorch has a class for that on a GPU, and a RuntimeError on the CPU.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _REFUSED)


def keep_freed_memory() -> None:
    """Have this process keep large blocks of memory that it frees, for their next use.

    By default the GNU C library gives them back to the system, whose fresh pages then cost a CPU
    network a fourth of its time, and more with larger tiles. Threads that begin later take such
    memory too, instead of new blocks of their own. Elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_M_ARENA_MAX, 1)


def _unknown(device: str) -> DeviceError:
    return DeviceError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
