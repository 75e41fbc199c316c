"""The command line: parse, call, exit code. Whatever is heavy is imported inside a command.

Exit codes: 0 all done or skipped, 1 some photos failed, 2 wrong usage or settings, 3 nothing could
run or the run had to stop, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from dpbatch import __version__
from dpbatch.cli.models import models
from dpbatch.engine.cluster import ENGINES, choose, found_from_anywhere
from dpbatch.errors import AbortError, PhotoError, SettingsError
from dpbatch.settings import (
    BLUR_ESTIMATORS,
    DEMOSAICS,
    FORMATS,
    LAYERS,
    Settings,
    settle_blur,
)
from dpbatch.storage.urls import place
from dpbatch.types import ClusterOptions
from ldp.errors import LdpError


class _Place(click.Path):
    """A path or a URL."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return place(value) if isinstance(value, str) else value


_PATH = click.Path(path_type=Path)
_PLACE = _Place()
_Command = Callable[..., None]


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            code, text = 2, str(error)
        except (AbortError, LdpError) as error:
            code, text = 3, str(error)
        except KeyboardInterrupt:
            code, text = 130, "interrupted"
        click.echo(f"dpbatch: {text}", err=True)
        ctx.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dpbatch")
def main() -> None:
    """Canon Dual Pixel RAW in, sharp pictures out: batch splitting and deblurring."""


main.add_command(models)


def _all(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, in this order in the help."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


_scan_options = _all(
    click.option("--recursive/--no-recursive", default=True, help="Go into subfolders (default)."),
    click.option("--include", multiple=True, metavar="GLOB", help="Only files that match."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match."),
)
_batch_options = _all(
    click.argument("inputs", nargs=-1, required=True, type=_PLACE),
    click.option("-o", "--out", required=True, type=_PLACE, help="Folder or URL for the results."),
    _scan_options,
    click.option(
        "--template",
        metavar="NAME",
        help="Output name without suffix, default '{dir}/{stem}'; also {ext}, {root}, {model}.",
    ),
    click.option("--preset", metavar="NAME|FILE.toml", help="Settings to start from."),
    click.option("--swap/--no-swap", default=None, help="Exchange the left and the right view."),
    click.option("--demosaic", type=click.Choice(DEMOSAICS), help="How the raw is developed."),
    click.option("--overwrite", is_flag=True, help="Make again what is done, replace what exists."),
    click.option("--retry-failed", is_flag=True, help="Only what failed before."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first failure."),
    click.option("--max-errors", type=click.IntRange(1), metavar="N", help="Stop at N failures."),
    click.option("--dry-run", is_flag=True, help="Say what would be done, do nothing."),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        help="Photos read ahead at a time, each in a process of its own; default 1, with Ray what "
        "keeps the actors busy.",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(0),
        metavar="MINUTES",
        help="Stop a process that takes longer for one step of a photo; default 60, 0 never.",
    ),
    click.option(
        "--wait-for-space",
        type=click.FloatRange(0),
        metavar="MINUTES",
        help="How long to pause on a full disk; default 10, 0 stops the run at once.",
    ),
    click.option("--json-log", is_flag=True, help="A JSON line for each input on stdout."),
    click.option("--quiet", is_flag=True, help="Only the closing table."),
)


@main.command()
@_batch_options
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Default tif.")
@click.option("--bit-depth", type=click.Choice(["16", "8"]), help="Default 16.")
@click.option(
    "--layers", metavar="NAMES", help=f"Maps to write beside the picture: {','.join(LAYERS)}."
)
@click.option("--model", metavar="NAME|FILE", help="Network: a shipped one or a .safetensors file.")
@click.option(
    "--blur",
    type=click.Choice(BLUR_ESTIMATORS),
    help="Blur map; auto (default): what the network was trained with.",
)
@click.option("--clip-weights", metavar="TAG|FILE", help="For the CLIP maps; default openai.")
@click.option("--device", metavar="DEVICE", help="auto (default), cpu, cuda, cuda:N.")
@click.option("--tile", type=click.IntRange(0), metavar="PX", help="Tile side, 0 chooses.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    help="auto (default) takes Ray for a cluster or several GPUs, else local.",
)
@click.option("--address", default="", metavar="ADDRESS", help="Ray: a running cluster, or auto.")
@click.option(
    "--gpus-per-actor", type=float, default=1.0, metavar="N", help="Ray: share of a GPU, default 1."
)
@click.option("--cpu-actors", type=click.IntRange(0), default=0, metavar="N", help="Ray: no GPUs.")
def run(**given: Any) -> None:
    """Deblur every dual-pixel photo in INPUTS: files, folders, URLs such as s3://bucket/shoot.

    Raw files (CR2, CR3) and pairs that are already split (NAME_L.tif with NAME_R.tif, folders
    inputL and inputR) are found; for each a TIFF with the source's metadata is written below --out.
    What an earlier run has done is skipped, what failed is tried again.
    """
    settings = _settings(given)
    from ldp.models.weights import read_header, resolve, sha256

    weights = resolve(settings.restore.model)  # before anything else: it may not be there
    header = read_header(weights)
    trained_with = header.blur_map
    if settings.restore.blur not in ("auto", trained_with):
        click.echo(
            f"dpbatch: warning: {settings.restore.model} was trained with the blur map "
            f"{trained_with!r}, and --blur {settings.restore.blur} gives it another one",
            err=True,
        )
    settings = settle_blur(settings, trained_with, header.needs_soft_map)

    from dpbatch.photo import PhotoStages, clip_id, require_clip

    asked = ClusterOptions(given["address"], given["gpus_per_actor"], given["cpu_actors"])
    cluster = choose(given["engine"], asked, settings.restore.device, _warn)
    if cluster is not None:
        settings = found_from_anywhere(settings)
    if not given["dry_run"]:
        require_clip(settings.restore)
    stages = PhotoStages(settings, sha256(weights), clip_id(settings.restore))
    _run_batch(given, settings, stages, cluster=cluster)


@main.command()
@_batch_options
def split(**given: Any) -> None:
    """Write the two views of every dual-pixel raw in INPUTS as NAME_L.tif and NAME_R.tif."""
    from dpbatch.tools.split import SplitStages

    settings = _settings(given)
    _run_batch(given, settings, SplitStages(settings), pairs=False)


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=_PATH)
@_scan_options
@click.option("--json", "as_json", is_flag=True, help="A JSON list, one object a file.")
def inspect(inputs: tuple[Path, ...], as_json: bool, **filters: Any) -> None:
    """Say of every raw file in INPUTS whether it is dual pixel, and what it holds."""
    from dpbatch.batch.scan import scan
    from dpbatch.tools.inspect import inspect as inspect_file

    found = scan(inputs, pairs=False, **filters)
    if not found.photos and not found.others:
        raise AbortError(f"{', '.join(map(str, inputs))}: no raw files found")
    seen, failed = [], 0
    for photo in found.photos:
        try:
            inspection = inspect_file(photo.paths[0])
        except PhotoError as error:
            click.echo(f"failed: {error}", err=True)
            failed += 1
            continue
        seen.append(inspection.to_dict())
        if not as_json:
            click.echo(inspection.to_text() + "\n")
    for other in found.others:
        click.echo(other.message, err=True)
        failed += other.failed
    if as_json:
        click.echo(json.dumps(seen, indent=2))
    sys.exit(1 if failed else 0)


@main.command()
@click.argument("folder", metavar="DIR", type=_PLACE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(folder: Path, as_json: bool) -> None:
    """Say how far the run is that writes to DIR, or how the latest one ended.

    DIR is the --out of a run. The journal there is read, nothing is written; the run may be going
    on in another terminal or on another machine.
    """
    from dpbatch.batch.status import read_status
    from dpbatch.batch.status_text import to_text

    seen = read_status(folder)
    click.echo(json.dumps(seen.to_dict(), indent=2) if as_json else to_text(seen))


@main.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets that come with dpbatch, or show one as TOML."""
    from dpbatch.presets import shipped, text

    if name is not None:
        click.echo(text(name), nl=False)
        return
    for shipped_name in shipped():
        summary = text(shipped_name).splitlines()[0].lstrip("# ")
        click.echo(f"{shipped_name:<10} {summary}")


@main.command()
@click.option(
    "-o", "--out", required=True, type=_PATH, help="Folder for the shoot and the results."
)
@click.option("--model", default=Settings().restore.model, show_default=True)
def demo(out: Path, model: str) -> None:
    """Render a small dual-pixel shoot as real CR2 files, deblur it, and measure the gain."""
    from dpbatch.tools.demo import run_demo

    sys.exit(run_demo(out, model))


@main.command()
@click.argument("picture", type=_PATH)
@click.argument("depth", type=_PATH)
@click.option("-o", "--out", required=True, type=_PATH, metavar="FILE.CR2")
@click.option("--near-m", type=float, metavar="M", help="Depth of the map's black, in metres.")
@click.option("--far-m", type=float, metavar="M", help="Depth of the map's white, in metres.")
@click.option("--depth-scale", type=float, metavar="M", help="Metres a grey step; 0 is unknown.")
@click.option("--focal-length-mm", type=float, default=50.0, show_default=True)
@click.option("--f-number", type=float, default=1.8, show_default=True)
@click.option("--focus-m", type=float, default=1.5, show_default=True)
@click.option(
    "--pixel-pitch-um", type=float, help="Default: the picture fills a sensor 36 mm wide."
)
@click.option("--iso", type=click.IntRange(50, 102_400), default=100, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise.")
@click.option("--overwrite", is_flag=True, help="Replace FILE.CR2 where it exists.")
def simulate(picture: Path, depth: Path, out: Path, **given: Any) -> None:
    """Make a Dual Pixel RAW of a sharp PICTURE (sRGB) and its DEPTH (a grey map), both 8 or 16 bit.

    A thin lens puts out of focus what lies away from the focus distance. The map's grey values are
    metres by --near-m and --far-m, straight between black and white, or by --depth-scale.
    """
    from training.simulator.sensor import DepthScale, Lens, photograph_scene

    if out.suffix.lower() != ".cr2":
        raise SettingsError(f"--out {out}: expected a name that ends in .CR2")
    if out.exists() and not given["overwrite"]:
        raise SettingsError(f"--out {out}: exists; replace it with --overwrite")
    scale = DepthScale(given["near_m"], given["far_m"], given["depth_scale"])
    lens = Lens(
        given["focal_length_mm"], given["f_number"], given["focus_m"], given["pixel_pitch_um"]
    )
    pair = photograph_scene(out, picture, depth, scale, lens, given["iso"], given["seed"])
    height, width = pair.coc_px.shape
    click.echo(
        f"{out}: {width}x{height}, circle of confusion {pair.coc_px.min():+.1f} to "
        f"{pair.coc_px.max():+.1f} px in radius, disparity {pair.disparity_px.min():+.1f} to "
        f"{pair.disparity_px.max():+.1f} px, near positive"
    )


@main.command()
@click.option("--size", "size_px", default="8192x5464", metavar="WxH", show_default=True)
@click.option("--photos", default=2, type=click.IntRange(1), show_default=True)
@click.option("--model", default=Settings().restore.model, show_default=True)
@click.option("--device", default=Settings().restore.device, show_default=True)
def benchmark(size_px: str, photos: int, model: str, device: str) -> None:
    """Time `run` on synthetic Dual Pixel RAW files, stage by stage, and its memory."""
    from dpbatch.tools.benchmark import run_benchmark

    width, _, height = size_px.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise SettingsError(f"--size {size_px}: expected WIDTHxHEIGHT in px, such as 8192x5464")
    arguments = ("--model", model, "--device", device)
    result = run_benchmark(int(width), int(height), photos, arguments)
    click.echo(result.to_text(int(width) * int(height) / 1e6, model))


_RESTORE_FLAGS = ("model", "device", "tile", "blur", "clip_weights")


def _settings(given: dict[str, Any]) -> Settings:
    """The defaults, then the preset, then the flags that were given."""
    from dpbatch.presets import load, merge

    layers, bit_depth = given.get("layers"), given.get("bit_depth")
    flags = {
        "raw": {"swap": given["swap"], "demosaic": given["demosaic"]},
        "restore": {name: given.get(name) for name in _RESTORE_FLAGS},
        "output": {
            "template": given["template"],
            "format": given.get("format_"),
            "bit_depth": int(bit_depth) if bit_depth else None,
            "layers": None if layers is None else [part for part in layers.split(",") if part],
        },
    }
    set_flags = {
        group: {name: value for name, value in values.items() if value is not None}
        for group, values in flags.items()
    }
    base = load(given["preset"]) if given["preset"] else Settings()
    return merge(base, set_flags, where="command line")


def _warn(text: str) -> None:
    click.echo(f"dpbatch: {text}", err=True)


def _run_batch(
    given: dict[str, Any],
    settings: Settings,
    stages: Any,
    pairs: bool = True,
    cluster: ClusterOptions | None = None,
) -> None:
    from dpbatch.batch.progress import Reporter
    from dpbatch.batch.run import run as run_batch
    from dpbatch.types import RunOptions

    times = {"step_limit_s": given["time_limit"], "wait_for_space_s": given["wait_for_space"]}
    options = RunOptions(
        inputs=given["inputs"],
        out=given["out"],
        recursive=given["recursive"],
        include=given["include"],
        exclude=given["exclude"],
        pairs=pairs,
        overwrite=given["overwrite"],
        retry_failed=given["retry_failed"],
        max_errors=1 if given["fail_fast"] else given["max_errors"] or 0,
        loaders=given["jobs"] or (1 if cluster is None else 0),
        **{name: 60 * minutes for name, minutes in times.items() if minutes is not None},
        cluster=cluster,
        dry_run=given["dry_run"],
    )
    log = sys.stdout if given["json_log"] else None
    messages = sys.stderr if log else sys.stdout
    sys.exit(run_batch(options, settings, stages, Reporter(messages, log, given["quiet"])))
