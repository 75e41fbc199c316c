"""A run with toy stages in a process of its own, to be interrupted and killed.

Arguments: input folder, output folder, seconds of each save.
"""

from __future__ import annotations

import sys

from dpbatch.batch.progress import Reporter
from dpbatch.batch.run import run
from dpbatch.location import parse_location
from dpbatch.types import RunOptions
from tests.helpers.toy_runs import SETTINGS
from tests.helpers.toy_stages import CopyStages

if __name__ == "__main__":
    shoot, out = map(parse_location, sys.argv[1:3])
    save_s = float(sys.argv[3])
    stages = CopyStages(seconds={"load": 0.02, "restore": 0.1, "save": save_s})
    sys.exit(run(RunOptions((shoot,), out), SETTINGS, stages, Reporter(sys.stdout)))
