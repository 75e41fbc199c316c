"""The commands of `dpbatch models`."""

from __future__ import annotations

from pathlib import Path

import click

from dpbatch.cli.echo import echo
from dpbatch.errors import SettingsError
from ldp.errors import ClipUnavailableError


@click.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List, describe, convert or fetch networks."""
    if ctx.invoked_subcommand is not None:
        return
    from dpbatch.tools.models import clip_files, shipped_networks

    for network in shipped_networks():
        echo(network.to_line())
    try:
        for clip in clip_files():
            echo(clip.to_line())
    except ClipUnavailableError as error:
        echo(str(error), err=True)


@models.command("describe")
@click.argument("model", metavar="NAME|FILE", required=False)
@click.option(
    "--size",
    metavar="SIZE",
    help="In place of a file: tiny, small, large, released, vitdeblur or restormer.",
)
def models_describe(model: str | None, size: str | None) -> None:
    """Print a network's size, cost and origin."""
    from dpbatch.tools.models import describe
    from ldp.models.cost import cost_of_size

    if (model is None) == (size is None):
        raise SettingsError("models describe: give a network's name or file, or --size")
    if model:
        echo(describe(model))
        return
    try:
        echo(f"{size}: {cost_of_size(str(size))}")
    except ValueError as error:
        raise SettingsError(f"--{error}") from error


@models.command("convert")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The .safetensors file to write.",
)
@click.option("--crop-px", type=click.IntRange(16), help="For LDP: side of its training's crops.")
def models_convert(checkpoint: Path, out: Path, crop_px: int | None) -> None:
    """Convert the CHECKPOINT of LDP's or ViTDeblur's authors.

    CHECKPOINT is the file that the authors released: LDP's model.pth, for --model, or one of
    ViTDeblur.
    """
    from ldp.models.conversion import convert
    from ldp.models.vitdeblur import ViTDeblur

    try:
        converted = convert(checkpoint, out, crop_px)
    except ValueError as error:
        raise SettingsError(f"--crop-px: {error}") from error
    if converted.unused:
        echo(f"{checkpoint}: stored, but not used by the network: {', '.join(converted.unused)}")
    if isinstance(converted.network, ViTDeblur):
        echo(
            f"{out}: written, ViTDeblur for single pictures; its licence: {out.with_suffix('.md')}"
        )
        return
    echo(f"{out}: written; use it with --model {out}")


@models.command("fetch")
@click.argument("blur", type=click.Choice(["clip", "clip-patch"]))
def models_fetch(blur: str) -> None:
    """Download the CLIP weights of a blur map and verify them."""
    from dpbatch.tools.models import fetch_clip

    clip, digest = fetch_clip(blur)
    echo(clip.to_line())
    echo(f"sha256 {digest}")
