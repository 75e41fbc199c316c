"""Commands that work on a shoot: run, split."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dpbatch.cli import options
from dpbatch.cli.echo import echo
from dpbatch.cli.options import Number, SectionedCommand
from dpbatch.engine.choose import ENGINES, choose, uses_gpu
from dpbatch.engine.processes import processes_here
from dpbatch.errors import SettingsError
from dpbatch.settings import (
    BLUR_ESTIMATORS,
    FORMATS,
    LARGEST_EXPOSURE_EV,
    LOOKS,
    ORDINARY,
    QUALITIES,
    SCALES,
    Settings,
    settle_blur,
    settle_network,
    settle_scale,
)
from dpbatch.types import ClusterOptions, Processes
from ldp.blur.estimator import unstretched

if TYPE_CHECKING:
    from dpbatch.batch.dry_run import Measure
    from dpbatch.types import BatchStages

_DEFAULTS = Settings()


@click.command(cls=SectionedCommand)
@options.inputs
@options.read_options
@options.read(
    "--single",
    is_flag=True,
    help="Take every TIFF, PNG and JPEG that is no half of a pair for an ordinary photo, too; "
    "without another --ordinary, `single` restores them.",
)
@options.write_options
@options.write(
    "--format",
    "format_",
    metavar="|".join(FORMATS),
    shown_default=_DEFAULTS.output.format,
    help="File format of the results; dng is a raw file for other editors.",
)
@options.write(
    "--bit-depth",
    type=click.Choice(["16", "8"]),
    shown_default=_DEFAULTS.output.bit_depth,
    help="Bits a colour: 16 for editing, 8 for viewing; a JPEG always has 8.",
)
@options.write(
    "--jpeg-quality",
    type=click.IntRange(1, 100),
    metavar="1..100",
    shown_default=_DEFAULTS.output.jpeg_quality,
    help="Quality of a JPEG.",
)
@options.editor_options
@options.layer_options
@options.preset_option
@options.focus_options
@options.restore(
    "--quality",
    type=click.Choice(QUALITIES, case_sensitive=False),
    shown_default="auto, best on a GPU, fast on a CPU",
    help="fast takes the network `tiny`; best takes `small`, which restores more and takes longer.",
)
@options.restore(
    "--model",
    metavar="NAME|FILE",
    shown_default="auto, by --quality",
    help="Network: one that comes with dpbatch (`dpbatch models`) or a .safetensors file.",
)
@options.restore(
    "--protect/--no-protect",
    default=None,
    shown_default="protect",
    help="Keep what is in focus as it is, and hold the network back in strong noise.",
)
@options.restore(
    "--blur",
    type=click.Choice(BLUR_ESTIMATORS),
    shown_default=f"{_DEFAULTS.restore.blur}, what the network was trained with",
    help="How blur is found: disparity compares the two views; learned asks a small network for "
    "its radius; clip and clip-patch ask a CLIP network, as in the LDP paper.",
)
@options.restore(
    "--scale",
    type=click.Choice(SCALES),
    shown_default="auto; 1 with --whole or --no-protect",
    help="Restore every region at the size that suits its blur (auto), or all at full size (1), at "
    "a half, a quarter or an eighth (2, 4, 8).",
)
@options.restore(
    "--whole/--tiles",
    default=None,
    shown_default="tiles",
    help="Compute a photo in one pass, as the networks' authors do, with memory for all of it.",
)
@options.restore(
    "--ordinary",
    type=click.Choice(ORDINARY),
    shown_default=_DEFAULTS.restore.ordinary,
    help="What to do with ordinary photos, which have one view: skip them, or restore them by the "
    "network `single`, or by ViTDeblur with weights of your own.",
)
@options.restore(
    "--single-weights",
    metavar="FILE",
    shown_default="those of `single`",
    help="Weights of the network of ordinary photos, such as a converted checkpoint of ViTDeblur.",
)
@options.restore(
    "--window-stride",
    type=click.IntRange(1, 310),
    metavar="PX",
    shown_default=f"{_DEFAULTS.restore.window_stride}, as published; 310 is ten times as fast",
    help="ViTDeblur: from one window of 320 px to the next.",
)
@options.restore(
    "--clip-weights",
    metavar="TAG|FILE",
    shown_default=_DEFAULTS.restore.clip_weights,
    help="Weights of the CLIP network.",
)
@options.look(
    "--look",
    type=click.Choice(LOOKS),
    shown_default=_DEFAULTS.output.look,
    help="camera: brightness and contrast of the camera's own JPEG; neutral: a plain rendering, "
    "darker and flatter.",
)
@options.look(
    "--exposure",
    type=Number(-LARGEST_EXPOSURE_EV, LARGEST_EXPOSURE_EV),
    metavar="EV",
    shown_default=_DEFAULTS.output.exposure,
    help="Make the picture brighter (1 doubles the light) or darker (-1).",
)
@options.look(
    "--white-balance",
    metavar="camera|auto|daylight|R,G,B",
    shown_default=_DEFAULTS.raw.white_balance,
    help="White balance of raw files: as shot, grey on average, daylight, or gains.",
)
@options.speed(
    "--device",
    metavar="DEVICE",
    shown_default=_DEFAULTS.restore.device,
    help="Where to compute: auto, cpu, cuda, cuda:N.",
)
@options.speed(
    "--tile",
    type=click.IntRange(0),
    metavar="PX",
    shown_default="0, chosen to fit the memory",
    help="Side of the squares that a photo is computed in.",
)
@options.jobs_option
@options.speed(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    shown_default="auto, Ray for a cluster or several GPUs, else local",
    help="What distributes the work.",
)
@options.speed(
    "--address", default="", metavar="ADDRESS", help="Ray: a running cluster, or auto to find it."
)
@options.speed(
    "--gpus-per-actor",
    type=Number(0),
    default=ClusterOptions.gpus_per_actor,
    metavar="N",
    shown_default=f"{ClusterOptions.gpus_per_actor:g}",
    help="Ray: GPUs for each copy of the network, also a share such as 0.5.",
)
@options.speed(
    "--cpu-actors",
    type=click.IntRange(0, 65_536),
    default=ClusterOptions.cpu_actors,
    metavar="N",
    shown_default="0, use GPUs",
    help="Ray: compute with N copies of the network on CPUs.",
)
@options.speed(
    "--gpu-actors",
    type=click.IntRange(0, 65_536),
    default=ClusterOptions.gpu_actors,
    metavar="N",
    shown_default="0, use what GPUs there are",
    help="Ray: have a cluster that scales by itself start machines for N copies of the network.",
)
@options.trouble_options
@options.message_options
def run(**given: Any) -> None:
    """Deblur every dual-pixel photo in INPUTS.

    INPUTS are files, folders, or URLs such as s3://bucket/shoot. Reads raw files (CR2, CR3) and
    pairs that are already split (NAME_L.tif with NAME_R.tif, or folders inputL and inputR). Writes
    one picture for each to --out, with the camera's metadata. A second run skips what is done and
    tries again what failed. Raws without dual pixels, of any camera, are skipped, or restored with
    --ordinary.
    """
    settings = _with_pictures(options.settings_of(given), given)
    from dpbatch.networks import checked_sha256, two_view_header
    from ldp.models.weights import resolve, sha256

    asked = ClusterOptions(**{name: given[name] for name in vars(ClusterOptions())})
    cluster = choose(given["engine"], asked, settings.restore.device, _warn)
    on_gpu = uses_gpu(settings.restore.device, cluster)
    settings = replace(settings, restore=settle_network(settings.restore, on_gpu))
    header = two_view_header(settings.restore.model)  # first of all: it may be missing
    if unstretched(settings.restore.blur) not in ("auto", header.blur_map):
        _warn(
            f"warning: {settings.restore.model} was trained with the blur map "
            f"{header.blur_map!r}, and --blur {settings.restore.blur} gives it another one"
        )
    settings = settle_blur(settings, header.blur_map, header.needs_soft_map)
    settings = replace(settings, restore=settle_scale(settings.restore, header.is_third_party))
    ordinary_sha256 = checked_sha256(settings.restore)

    from dpbatch.batch.kept import kept_for
    from dpbatch.batch.photo_stages import PhotoStages
    from dpbatch.output.exr import require_openexr
    from dpbatch.raw.masks import check_mask
    from dpbatch.tools.models import clip_id, clip_must_be_fetched, require_clip

    check_mask(settings.focus.mask)
    if settings.output.layers_in == "exr":
        require_openexr()
    if cluster is not None:
        from dpbatch.engine.node_check import with_absolute_weights

        settings = with_absolute_weights(settings)
    clip = clip_id(settings.restore)
    stages = PhotoStages(settings, sha256(resolve(settings.restore.model)), clip, ordinary_sha256)
    kept = kept_for(given["out"], given["keep_restoration"], settings, stages.weights_sha256, clip)
    processes = processes_here(on_gpu, cluster, given["jobs"] or 0)
    stages = replace(stages, kept=kept, finds_ahead=processes.finds_ahead)
    measure: Measure | None = stages.measure
    if not given["dry_run"]:
        require_clip(settings.restore)
    elif clip_must_be_fetched(settings.restore):
        _warn(
            "the weights of CLIP are not in the cache; the run downloads them first. This dry run "
            "does not, and measures no time"
        )
        measure = None
    _run_batch(given, settings, stages, processes, cluster=cluster, measure=measure)


@click.command(cls=SectionedCommand)
@options.inputs
@options.read_options
@options.write_options
@options.preset_option
@options.jobs_option
@options.trouble_options
@options.message_options
def split(**given: Any) -> None:
    """Write the two views of every dual-pixel raw in INPUTS.

    Each photo becomes NAME_L.tif and NAME_R.tif, for other programs or for a later run.
    """
    from dpbatch.tools.split import SplitStages

    settings = options.settings_of(given)
    settings = replace(settings, restore=replace(settings.restore, ordinary="skip"))
    processes = Processes(given["jobs"] or 1)
    _run_batch(given, settings, SplitStages(settings), processes, pairs=False)


def _with_pictures(settings: Settings, given: dict[str, Any]) -> Settings:
    """Return the settings with a network for the pictures of --single. Raises SettingsError."""
    if not given["single"] or settings.restore.ordinary != "skip":
        return settings
    if given["ordinary"] == "skip":
        raise SettingsError("--single and --ordinary skip: give one of the two")
    return replace(settings, restore=replace(settings.restore, ordinary="single"))


def _warn(text: str) -> None:
    echo(f"dpbatch: {text}", err=True)


def _run_batch(
    given: dict[str, Any],
    settings: Settings,
    stages: BatchStages,
    processes: Processes,
    *,
    pairs: bool = True,
    cluster: ClusterOptions | None = None,
    measure: Measure | None = None,
) -> None:
    """Run the stages over the inputs and exit with the run's code."""
    from dpbatch.batch.progress import Reporter
    from dpbatch.batch.run import run as run_batch
    from dpbatch.types import RunOptions

    options.leave_deleted_folder([*given["inputs"], given["out"]])
    times = {"step_limit_s": given["time_limit"], "wait_for_space_s": given["wait_for_space"]}
    run_options = RunOptions(
        inputs=given["inputs"],
        out=given["out"],
        recursive=given["recursive"],
        include=given["include"],
        exclude=given["exclude"],
        pairs=pairs,
        pictures=given.get("single", False),
        overwrite=given["overwrite"],
        retry_failed=given["retry_failed"],
        max_errors=1 if given["fail_fast"] else given["max_errors"] or 0,
        processes=processes,
        **{name: 60 * minutes for name, minutes in times.items() if minutes is not None},
        cluster=cluster,
        dry_run=given["dry_run"],
    )
    log = sys.stdout if given["json_log"] else None
    messages = sys.stderr if log else sys.stdout
    reporter = Reporter(messages, log, given["quiet"])
    sys.exit(run_batch(run_options, settings, stages, reporter, measure=measure))
