"""A process that really runs out of memory restores the photo all the same, in smaller tiles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RESTORE_WITH_LITTLE_MEMORY = """
import resource, sys
import numpy as np
import torch
from ldp.model import Model
from ldp.models.network import LDPNet, NetworkConfig
from ldp.types import ViewPair

little_mib, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)  # a thread's stack counts too
torch.manual_seed(0)
config = NetworkConfig(encoder=(1,), middle=1, decoder=(1,), crop_px=64, attention=False)
left, right = (np.random.default_rng(0).random((900, 900, 3), np.float32) for _ in range(2))
model = Model(LDPNet(config), device="cpu", tile=1024, protect=False)
small = slice(0, 32), slice(0, 32)
model.restore(ViewPair(left[small], right[small]))  # loads what the first call loads
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (little_mib << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
totals = []
views = ViewPair(left, right)
np.save(path, model.restore(views, progress=lambda done, total: totals.append(total)).sharp)
print(totals[-1])
"""


def restored_with(extra_mib: int, result: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RESTORE_WITH_LITTLE_MEMORY, str(extra_mib), str(result)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_tiles_are_halved_until_they_fit(tmp_path: Path) -> None:
    roomy = restored_with(8192, tmp_path / "roomy.npy")
    assert (roomy.returncode, roomy.stdout) == (0, "1\n"), roomy.stderr
    tight = restored_with(700, tmp_path / "tight.npy")
    assert tight.returncode == 0, tight.stderr
    assert int(tight.stdout) > 1
    # The network's local averages differ a little with the tiles.
    whole, halved = (np.load(tmp_path / f"{name}.npy") for name in ("roomy", "tight"))
    np.testing.assert_allclose(halved, whole, atol=0.02)
