"""Commands that make their own photos: demo, benchmark."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dpbatch.cli.echo import echo
from dpbatch.engine.choose import uses_gpu
from dpbatch.errors import SettingsError
from dpbatch.settings import RestoreSettings, Settings, settle_blur, settle_network, settle_scale

# Of the active area; no camera comes near the largest.
_SMALLEST_PX, _LARGEST_PX = 64, 30_000

_model_option = click.option(
    "--model",
    default=RestoreSettings.model,
    metavar="NAME|FILE",
    show_default="auto: small on a GPU, tiny on a CPU",
    help="Network to use.",
)


def _settled(model: str, device: str = RestoreSettings.device) -> str:
    """Return the name of a network in place of auto."""
    restore = RestoreSettings(model=model, device=device)
    return settle_network(restore, uses_gpu(device, None)).model


@click.command()
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the shoot and the results.",
)
@_model_option
@click.option(
    "--ordinary",
    type=click.Choice(("skip", "single")),
    default=RestoreSettings.ordinary,
    show_default=True,
    help="What to do with the photo that has no dual pixels.",
)
def demo(out: Path, model: str, ordinary: str) -> None:
    """Render a small shoot, deblur it and measure the gain.

    The photos are real CR2 files, rendered from pictures with known depth.
    """
    from dpbatch.tools.demo import run_demo

    sys.exit(run_demo(out, _settled(model), ordinary))


@click.command()
@click.option(
    "--size",
    "size_px",
    default="8192x5464",
    metavar="WxH",
    show_default=True,
    help="Size of a photo in pixels.",
)
@click.option("--photos", default=2, type=click.IntRange(1), show_default=True)
@click.option(
    "--in-focus",
    default=0.5,
    type=click.FloatRange(0, 1),
    show_default=True,
    help="Share of each photo that is in focus.",
)
@_model_option
@click.option(
    "--device",
    default=RestoreSettings.device,
    show_default=True,
    help="Where to compute: auto, cpu, cuda, cuda:N.",
)
@click.option("--preset", metavar="NAME|FILE.toml", help="Settings to measure with.")
@click.option(
    "--compare",
    metavar="CHECKOUT",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Another version's checkout, run in turns with this one, with its own defaults.",
)
@click.option("--turns", default=3, type=click.IntRange(1), show_default=True)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.File("w", encoding="utf-8", lazy=False),  # fails before the time is spent
    help="Write the figures there too.",
)
def benchmark(size_px: str, model: str, device: str, preset: str | None, **given: Any) -> None:
    """Measure the time and memory of `run` on files made for it.

    The photos are CR2 files of a texture, a part of it in focus. Each stage is timed alone, then
    the whole run.
    """
    from dpbatch.tools.benchmark.measure import BenchmarkOptions, run_benchmark

    options = BenchmarkOptions(
        size_px=_width_height(size_px),
        photos=given["photos"],
        in_focus=given["in_focus"],
        run_options=("--preset", str(_preset_path(preset))) if preset else (),
        compare=given["compare"],
        turns=given["turns"],
    )
    report = run_benchmark(options, _measured_settings(model, device, preset))
    echo(report.to_text())
    if given["json_file"] is not None:
        json.dump(report.to_dict(), given["json_file"], indent=2)


def _measured_settings(model: str, device: str, preset: str | None) -> Settings:
    """Return the settings of the run with network and blur map named."""
    from dpbatch.networks import two_view_header
    from dpbatch.presets import load

    settings = load(preset) if preset else Settings()
    restore = settings.restore
    if model != RestoreSettings.model:
        restore = replace(restore, model=model)
    if device != RestoreSettings.device:
        restore = replace(restore, device=device)
    restore = settle_network(restore, uses_gpu(restore.device, None))
    header = two_view_header(restore.model)
    restore = settle_scale(restore, header.is_third_party)
    return settle_blur(replace(settings, restore=restore), header.blur_map, header.needs_soft_map)


def _preset_path(preset: str) -> str | Path:
    """Return a shipped preset's name, or the absolute path of a file."""
    return Path(preset).expanduser().resolve() if preset.lower().endswith(".toml") else preset


def _width_height(size_px: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size_px, re.ASCII)
    width, height = (int(number) for number in match.groups()) if match else (0, 0)
    if not all(_SMALLEST_PX <= side <= _LARGEST_PX for side in (width, height)):
        raise SettingsError(
            f"--size {size_px}: expected WIDTHxHEIGHT in px, such as 8192x5464, each of "
            f"{_SMALLEST_PX} to {_LARGEST_PX}"
        )
    return width, height
