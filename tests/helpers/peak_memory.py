"""The peak memory of a script that runs in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_STATUS = Path("/proc/self/status")


def peak_memory_gib(script: str) -> float:
    """Runs the script and returns the most memory that its process held. Linux; skips elsewhere.

    Not by getrusage: its maximum counts what the parent held when it started the process.
    """
    if not _STATUS.exists():
        pytest.skip("reads the peak from /proc")
    script += f"\nprint(open({str(_STATUS)!r}).read())\n"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    (peak_kib,) = re.findall(r"VmHWM:\s*(\d+) kB", ran.stdout)
    return int(peak_kib) / 2**20
