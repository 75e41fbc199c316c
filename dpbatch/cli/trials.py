"""Commands that make their own photos: demo, benchmark."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from dpbatch.cli.echo import echo
from dpbatch.engine.choose import uses_gpu
from dpbatch.errors import SettingsError
from dpbatch.settings import RestoreSettings, settle_network

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
def demo(out: Path, model: str) -> None:
    """Render a small shoot, deblur it and measure the gain.

    The photos are real CR2 files, rendered from pictures with known depth.
    """
    from dpbatch.tools.demo import run_demo

    sys.exit(run_demo(out, _settled(model)))


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
@_model_option
@click.option(
    "--device",
    default=RestoreSettings.device,
    show_default=True,
    help="Where to compute: auto, cpu, cuda, cuda:N.",
)
def benchmark(size_px: str, photos: int, model: str, device: str) -> None:
    """Measure the time and memory of `run` on generated files."""
    from dpbatch.tools.benchmark import run_benchmark

    width, height = _width_height(size_px)
    model = _settled(model, device)
    result = run_benchmark(width, height, photos, model, device)
    echo(result.to_text(width * height / 1e6, model))


def _width_height(size_px: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size_px, re.ASCII)
    width, height = (int(number) for number in match.groups()) if match else (0, 0)
    if not all(_SMALLEST_PX <= side <= _LARGEST_PX for side in (width, height)):
        raise SettingsError(
            f"--size {size_px}: expected WIDTHxHEIGHT in px, such as 8192x5464, each of "
            f"{_SMALLEST_PX} to {_LARGEST_PX}"
        )
    return width, height
