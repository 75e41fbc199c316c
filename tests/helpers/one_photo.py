"""One small photo through the stages of a run, with `tiny` on a CPU."""

from pathlib import Path

from dpbatch.batch.kept import KeptRestorations
from dpbatch.batch.photo_stages import PhotoStages, layer_suffixes
from dpbatch.settings import OutputSettings, RestoreSettings, Settings
from dpbatch.types import Job, Photo, Saved

NETWORK = RestoreSettings(model="tiny", tile=256, blur="disparity")
PLAIN = Settings(restore=NETWORK, output=OutputSettings(look="neutral"))


def run(settings: Settings, raw: Photo, out: Path, kept: KeptRestorations | None = None) -> Saved:
    """Load, restore and save a photo as "a" in a folder."""
    suffixes = (f".{settings.output.format}", *layer_suffixes(settings.output))
    job = Job("a.tif", "a.CR2", raw, tuple(out / f"a{suffix}" for suffix in suffixes))
    stages = PhotoStages(settings, "hash", kept=kept)
    return stages.save(job, stages.restorer()(stages.load(job), lambda done, of: None))
