"""A run with toy stages on a Ray cluster, in a process of its own, to be interrupted and killed.

Arguments: input folder, output folder, address of the cluster ("" starts one), number of actors,
seconds of each save.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dpbatch.batch.progress import Reporter
from dpbatch.batch.run import run
from dpbatch.types import ClusterOptions, Processes, RunOptions
from tests.helpers.toy_runs import SETTINGS
from tests.helpers.toy_stages import CopyStages

if __name__ == "__main__":
    shoot, out, address, actors, save_s = sys.argv[1:]
    cluster = ClusterOptions(address, cpu_actors=int(actors))
    options = RunOptions((Path(shoot),), Path(out), processes=Processes(0), cluster=cluster)
    stages = CopyStages(seconds={"load": 0.1, "restore": 0.3, "save": float(save_s)})
    sys.exit(run(options, SETTINGS, stages, Reporter(sys.stdout)))
