"""What the README says can be typed in as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import tifffile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_and_loads_neither_rawpy_nor_the_command_line(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).random((64, 96, 3)).astype(np.float32)
    view = (cv2.GaussianBlur(noise, (0, 0), 2.0) * 65535).astype(np.uint16)
    for side in "LR":
        tifffile.imwrite(tmp_path / f"IMG_1_{side}.tif", view)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code += "\nimport sys\nprint(sorted({'rawpy', 'ray', 'click', 'exiv2'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    sharp = tifffile.imread(tmp_path / "IMG_1.tif")
    assert sharp.shape == (64, 96, 3)
    assert sharp.dtype == np.uint16


def test_the_two_commands_stand_where_ci_takes_them_from() -> None:
    for name, last in (("demo", "dpbatch demo --out demo"), ("tests", "pytest")):
        (command,) = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)\n```", README)
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints")
        assert command.endswith(f".venv/bin/{last}")
