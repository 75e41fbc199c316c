"""An engine without processes, which take seconds to start."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from dpbatch.errors import PhotoError
from dpbatch.types import Job, Outcome, Status, outcome_of


class InlineEngine:
    """Runs the stages here, pickled as for a process of their own."""

    def __init__(self, stages: Any, **_: object) -> None:
        self.stages = pickle.loads(pickle.dumps(stages))

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            stage = "load"
            try:
                loaded = pickle.loads(pickle.dumps(self.stages.load(job)))
                restored = pickle.loads(pickle.dumps(self.stages.restorer()(loaded, print)))
                stage = "save"
                saved = self.stages.save(job, restored)
            except PhotoError as error:
                yield job, outcome_of(error, stage)
            else:
                yield job, Outcome(Status.DONE, "save", saved=saved)
