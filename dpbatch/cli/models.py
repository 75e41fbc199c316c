"""The commands of `dpbatch models`; like all of the command line, they parse, call and print."""

from __future__ import annotations

from pathlib import Path

import click

from dpbatch.errors import SettingsError
from ldp.errors import ClipUnavailableError


@click.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List the networks and the CLIP weights, or do something with them."""
    if ctx.invoked_subcommand is not None:
        return
    from dpbatch.tools.models import clip_files, shipped_networks

    for network in shipped_networks():
        click.echo(network.to_line())
    try:
        for clip in clip_files():
            click.echo(clip.to_line())
    except ClipUnavailableError as error:
        click.echo(str(error), err=True)


@models.command("describe")
@click.argument("model", metavar="NAME|FILE", required=False)
@click.option("--size", metavar="SIZE", help="One of tiny, small, large, released: no weights.")
def models_describe(model: str | None, size: str | None) -> None:
    """Print a network's parameters and multiply-adds, and what its file says."""
    from dpbatch.tools.models import cost_of_size, describe

    if (model is None) == (size is None):
        raise SettingsError("models describe: give a network's name or file, or --size")
    click.echo(describe(model) if model else f"{size}: {cost_of_size(str(size))}")


@models.command("convert")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The .safetensors file to write.",
)
@click.option("--crop-px", type=click.IntRange(16), help="Side of its training crops.")
def models_convert(checkpoint: Path, out: Path, crop_px: int | None) -> None:
    """Turn the CHECKPOINT that LDP's authors released (model.pth) into a file for --model."""
    from ldp.models.conversion import convert

    unused = convert(checkpoint, out, crop_px).unused
    if unused:
        click.echo(f"{checkpoint}: stored, but not used by the network: {', '.join(unused)}")
    click.echo(f"{out}: written; use it with --model {out}")


@models.command("fetch")
@click.argument("blur", type=click.Choice(["clip", "clip-patch"]))
def models_fetch(blur: str) -> None:
    """Fetch the CLIP weights of a blur map into open_clip's cache and verify them."""
    from dpbatch.tools.models import fetch_clip

    clip, digest = fetch_clip(blur)
    click.echo(clip.to_line())
    click.echo(f"sha256 {digest}")
