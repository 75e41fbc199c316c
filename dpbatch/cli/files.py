"""Commands on single files and on what a run leaves: inspect, simulate, forget."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from dpbatch.cli import options
from dpbatch.cli.echo import echo
from dpbatch.cli.options import Location, Number, SectionedCommand, section
from dpbatch.errors import AbortError, PhotoError, SettingsError

_PATH = click.Path(path_type=Path)
_scene = section("Scene")
_lens = section("Lens and camera")


@click.command(cls=SectionedCommand)
@click.argument("inputs", nargs=-1, required=True, type=_PATH)
@options.scan_options
@options.messages("--json", "as_json", is_flag=True, help="Print a JSON list, one object a file.")
def inspect(inputs: tuple[Path, ...], as_json: bool, **filters: Any) -> None:
    """Show what the raw files in INPUTS hold.

    For each file: whether it is dual pixel, camera, size, black and white levels, clipping.
    """
    from dpbatch.batch.scan import scan
    from dpbatch.storage.local import LocalInputs
    from dpbatch.tools.inspect import inspect as inspect_file

    found = scan(inputs, LocalInputs(), pairs=False, ordinary=True, **filters)
    if not found.photos and not found.others:
        raise AbortError(f"{', '.join(map(str, inputs))}: no raw files found")
    inspected, failed = [], 0
    for photo in found.photos:
        try:
            inspection = inspect_file(photo.paths[0])
        except PhotoError as error:
            echo(f"failed: {error}", err=True)
            failed += 1
            continue
        inspected.append(inspection.to_dict())
        if not as_json:
            echo(inspection.to_text() + "\n")
    for other in found.others:
        echo(other.message, err=True)
        failed += other.failed
    if as_json:
        echo(json.dumps(inspected, indent=2))
    sys.exit(1 if failed else 0)


@click.command(cls=SectionedCommand)
@click.argument("picture", type=_PATH)
@click.argument("depth", type=_PATH)
@options.write("-o", "--out", required=True, type=_PATH, metavar="FILE.CR2")
@options.write("--overwrite", is_flag=True, help="Replace FILE.CR2 where it exists.")
@_scene(
    "--near-m",
    type=Number(0),
    metavar="M",
    help="Distance of black in DEPTH, in metres; required unless --depth-scale is given.",
)
@_scene(
    "--far-m",
    type=Number(0),
    metavar="M",
    help="Distance of white in DEPTH, in metres; required unless --depth-scale is given.",
)
@_scene(
    "--depth-scale",
    type=Number(0),
    metavar="M",
    help="Metres a grey step, in place of --near-m and --far-m; grey 0 means unknown.",
)
@_lens("--focal-length-mm", type=Number(0), default=50.0, show_default=True)
@_lens("--f-number", type=Number(0), default=1.8, show_default=True)
@_lens(
    "--focus-m",
    type=Number(0),
    default=1.5,
    show_default=True,
    help="Distance in focus.",
)
@_lens(
    "--pixel-pitch-um",
    type=Number(0),
    shown_default="PICTURE fills a sensor 36 mm wide",
    help="Distance between photosites.",
)
@_lens("--iso", type=click.IntRange(50, 102_400), default=100, show_default=True)
@_lens("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the noise.")
def simulate(picture: Path, depth: Path, out: Path, **given: Any) -> None:
    """Make a Dual Pixel RAW of a PICTURE and its DEPTH.

    PICTURE is sharp and sRGB, DEPTH is grey; both have 8 or 16 bits. A thin lens blurs what lies
    away from the focus distance. The grey values of DEPTH are distances on a straight line from
    --near-m (black) to --far-m (white), or multiples of --depth-scale: give the first two or the
    last.
    """
    from dpbatch.tools.simulate import Camera, simulate_raw

    if out.suffix.lower() != ".cr2":
        raise SettingsError(f"--out {out}: expected a name that ends in .CR2")
    overwrite = given.pop("overwrite")
    if out.exists() and not overwrite:
        raise SettingsError(f"--out {out}: exists; replace it with --overwrite")
    pair = simulate_raw(out, picture, depth, Camera(**given))
    height, width = pair.coc_px.shape
    echo(
        f"{out}: {width}x{height}, circle of confusion {pair.coc_px.min():+.1f} to "
        f"{pair.coc_px.max():+.1f} px in radius, disparity {pair.disparity_px.min():+.1f} to "
        f"{pair.disparity_px.max():+.1f} px, near positive"
    )


@click.command()
@click.argument("folder", metavar="DIR", type=Location())
def forget(folder: Path) -> None:
    """Remove the restorations that are kept in DIR for other choices of depths.

    DIR is the --out of a run. Results and journal stay.
    """
    from dpbatch.batch.kept import forget as forget_kept

    if not isinstance(folder, Path):
        raise click.UsageError(f"{folder}: only folders of this machine keep restorations")
    count, size_bytes = forget_kept(folder)
    echo(f"{folder}: {count} restorations removed, {size_bytes / 1e9:.1f} GB")
