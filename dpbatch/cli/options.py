"""Options in titled sections, those that several commands share, and their values as settings."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import click

from dpbatch.focus_settings import LARGEST_PX, RESCUES, FocusSettings
from dpbatch.location import RemotePath, absolute, parse_location
from dpbatch.settings import (
    COLOR_SPACES,
    DNG_KINDS,
    HIGHLIGHTS,
    LAYER_FORMATS,
    LAYER_GEOMETRIES,
    LAYERS,
    LAYERS_IN,
    OutputSettings,
    Settings,
)
from dpbatch.types import Limits, RunOptions

Decorator = Callable[[Any], Any]


class SectionedOption(click.Option):
    """An option that the help lists under the title `section`."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help lists the options in sections, in the order of their declaration."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one definition list a section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                title = getattr(parameter, "section", "Other")
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class Location(click.Path):
    """A path or a URL."""

    name = "path or url"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path that stands for what was typed."""
        return parse_location(value) if isinstance(value, str) else value


class Number(click.FloatRange):
    """A finite number: NaN lies in every range and infinity in most."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the number that was typed."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


def section(title: str) -> Callable[..., Decorator]:
    """Return `click.option` for one section of the help.

    Its argument shown_default is the value that holds without a preset and a flag.
    """

    def option(*names: str, help: str = "", shown_default: object = None, **kwargs: Any) -> Any:
        if shown_default is not None:
            help = f"{help}  [default: {shown_default}]"
        return click.option(*names, cls=SectionedOption, section=title, help=help, **kwargs)

    return option


def together(*options: Decorator) -> Decorator:
    """Return several options as one decorator, in this order in the help."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


read = section("What to read")
write = section("What to write")
restore = section("How to restore")
look = section("How it looks")
speed = section("Speed and machines")
trouble = section("When something goes wrong")
messages = section("Messages")

inputs = click.argument("inputs", nargs=-1, required=True, type=Location())
scan_options = together(
    read(
        "--recursive/--no-recursive",
        default=True,
        shown_default="--recursive",
        help="Look into subfolders too.",
    ),
    read("--include", multiple=True, metavar="GLOB", help="Read only files that match."),
    read("--exclude", multiple=True, metavar="GLOB", help="Leave out files that match."),
)
read_options = together(
    scan_options,
    read(
        "--swap/--no-swap",
        default=None,
        shown_default="--no-swap",
        help="Exchange the left and the right view.",
    ),
)
write_options = together(
    write("-o", "--out", required=True, type=Location(), help="Folder or URL for the results."),
    write(
        "--template",
        metavar="NAME",
        shown_default=Settings().output.template,
        help="Name of a result without its suffix: {dir} subfolder, {stem} file name, {ext} suffix "
        "of the input, {root} name of the folder given, {model}.",
    ),
    write("--overwrite", is_flag=True, help="Make everything again and replace what exists."),
)
editor_options = together(
    write(
        "--dng",
        type=click.Choice(DNG_KINDS),
        shown_default=OutputSettings.dng,
        help="What a DNG holds: mosaic, the camera's own colour filter array, or linear, three "
        "colours a pixel.",
    ),
    write(
        "--color-space",
        type=click.Choice(COLOR_SPACES),
        shown_default=OutputSettings.color_space,
        help="Colours of a TIFF, PNG or JPEG; linear is linear light in the primaries of prophoto.",
    ),
    write(
        "--highlights",
        type=click.Choice(HIGHLIGHTS),
        shown_default=OutputSettings.highlights,
        help="recover: light up to a stop above white, which the second frame of a raw file shows; "
        "a DNG or EXR holds it, the camera's look rolls it off. clip: white is the end.",
    ),
)
layer_options = together(
    write(
        "--layers",
        metavar="NAMES",
        shown_default="none",
        help=f"Maps to write, separated by commas: {', '.join(LAYERS)}.",
    ),
    write(
        "--layers-in",
        type=click.Choice(LAYERS_IN),
        shown_default=OutputSettings.layers_in,
        help="Where the maps go: files, one each; alpha, channels of the TIFF; photoshop, a TIFF "
        "of layers, the original below the sharp photo and its mask; darktable, an RGB PNG for "
        "its raster masks; exr; dng, depth in the DNG itself, as its depth map.",
    ),
    write(
        "--layer-geometry",
        type=click.Choice(LAYER_GEOMETRIES),
        shown_default=OutputSettings.layer_geometry,
        help="Maps in files or exr: upright like the picture, or as the sensor lies.",
    ),
    write(
        "--layer-format",
        metavar="|".join(LAYER_FORMATS),
        shown_default=OutputSettings.layer_format,
        help="File format of the maps, 16-bit grey.",
    ),
)
focus_options = together(
    restore(
        "--rescue",
        type=click.Choice(RESCUES),
        shown_default=FocusSettings.rescue,
        help="What is made sharp: all of the photo, or the subject: the depth at the camera's AF "
        "area, or else of the sharpest large region.",
    ),
    restore(
        "--focus-range",
        metavar="NEAR:FAR",
        shown_default="all depths",
        help="Only these depths: disparities in px such as 3:-1, or shares of the photo from its "
        "nearest point on, such as 10%:40%.",
    ),
    restore(
        "--keep-background",
        is_flag=True,
        default=None,
        help="Leave what lies behind the focus plane as it is.",
    ),
    restore(
        "--keep-foreground",
        is_flag=True,
        default=None,
        help="Leave what lies before the focus plane as it is.",
    ),
    restore(
        "--mask",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        shown_default="none",
        help="Only where this grey picture, as upright as the result, is white.",
    ),
    restore(
        "--strength",
        type=Number(0, 1),
        metavar="0..1",
        shown_default=FocusSettings.strength,
        help="How much of the restoration is kept.",
    ),
    restore(
        "--refocus",
        metavar="PX",
        shown_default="all sharp",
        help="Draw the photo as if focused at this disparity, near of the focus plane positive.",
    ),
    restore(
        "--bokeh-shift",
        type=Number(-LARGEST_PX, LARGEST_PX),
        metavar="PX",
        shown_default=FocusSettings.bokeh_shift,
        help="Move the strongest blur by PX, near things to the right and far ones to the left.",
    ),
    restore(
        "--keep-restoration/--no-keep-restoration",
        default=None,
        shown_default="kept where one of these is given",
        help="Keep the whole restoration in the output folder (12 to 24 bytes a pixel), so that "
        "another choice takes a moment; `dpbatch forget` removes it.",
    ),
)
preset_option = restore(
    "--preset",
    metavar="NAME|FILE.toml",
    help="Start from saved settings; `dpbatch presets` lists those that come with dpbatch.",
)
jobs_option = speed(
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Read N photos ahead, each in its own process.  [default: 1; more on a GPU with four "
    "cores and more; with Ray as many as keep the GPUs busy]",
)
trouble_options = together(
    trouble("--dry-run", is_flag=True, help="Show what would be done and do nothing."),
    trouble("--retry-failed", is_flag=True, help="Only photos that failed in an earlier run."),
    trouble("--fail-fast", is_flag=True, help="Stop at the first photo that fails."),
    trouble(
        "--max-errors",
        type=click.IntRange(1),
        metavar="N",
        shown_default="never",
        help="Stop when N photos have failed.",
    ),
    trouble(
        "--time-limit",
        type=Number(0),
        metavar="MINUTES",
        shown_default=f"{Limits.step_s / 60:g}",
        help="Give up on a photo that takes longer for one step; 0 waits for ever.",
    ),
    trouble(
        "--wait-for-space",
        type=Number(0),
        metavar="MINUTES",
        shown_default=f"{RunOptions.wait_for_space_s / 60:g}",
        help="Pause so long on a full disk; 0 stops at once.",
    ),
)
message_options = together(
    messages("--json-log", is_flag=True, help="Print a line of JSON for each photo."),
    messages("--quiet", is_flag=True, help="Print only the table at the end."),
)


_RESTORE_FLAGS = (
    *("model", "quality", "device", "tile", "blur", "clip_weights", "protect", "scale", "whole"),
    *("ordinary", "single_weights", "window_stride"),
)

_EDITOR_FLAGS = ("dng", "color_space", "highlights")
_LAYER_FLAGS = ("layer_format", "layers_in", "layer_geometry")
_FOCUS_FLAGS = tuple(vars(FocusSettings()))


def settings_of(given: dict[str, Any]) -> Settings:
    """Return the defaults, overridden by the preset, overridden by the flags that were given.

    given: the command's parameters. Raises SettingsError.
    """
    from dpbatch.presets import load, merge

    layers, bit_depth = given.get("layers"), given.get("bit_depth")
    layer_names = None if layers is None else [name.strip() for name in layers.split(",")]
    flags = {
        "raw": {
            "swap": given["swap"],
            "white_balance": given.get("white_balance"),
        },
        "restore": {name: given.get(name) for name in _RESTORE_FLAGS},
        "focus": {name: given.get(name) for name in _FOCUS_FLAGS},
        "output": {
            "template": given["template"],
            "format": given.get("format_"),
            "bit_depth": int(bit_depth) if bit_depth else None,
            "jpeg_quality": given.get("jpeg_quality"),
            "layers": None if layer_names is None else [name for name in layer_names if name],
            **{name: given.get(name) for name in _LAYER_FLAGS},
            "look": given.get("look"),
            "exposure": given.get("exposure"),
            **{name: given.get(name) for name in _EDITOR_FLAGS},
        },
    }
    set_flags = {
        group: {name: value for name, value in values.items() if value is not None}
        for group, values in flags.items()
    }
    base = load(given["preset"]) if given["preset"] else Settings()
    return merge(base, set_flags, where="command line")


def leave_deleted_folder(paths: Sequence[Path | RemotePath]) -> None:
    """Change to the root folder where the working folder was deleted.

    Processes cannot be started there, and PyTorch does not compute there. Raises SettingsError
    where a path of this machine is not absolute.
    """
    try:
        Path.cwd()
    except OSError:
        for path in paths:
            if isinstance(path, Path):
                absolute(path)
        os.chdir(Path(sys.executable).anchor)
