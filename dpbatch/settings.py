"""The settings of a run and their defaults. Presets and flags override them.

Metadata of a field says whether `dpbatch.fingerprints` counts it: "pixels" is True if left out,
False, or "if changed".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from string import Formatter

from dpbatch.errors import SettingsError
from dpbatch.focus_settings import IN_PIXELS_IF_CHANGED, NOT_IN_PIXELS, FocusSettings
from ldp.blur.estimator import ESTIMATORS, OPENAI

CLIP_MAPS = ("clip", "clip-patch", "clip-patch-stretched")
BLUR_ESTIMATORS = ("auto", *ESTIMATORS)
SCALES = ("auto", "1", "2", "4", "8")
FORMATS = ("tif", "png", "jpg", "dng")
DNG_KINDS = ("mosaic", "linear")
COLOR_SPACES = ("srgb", "display-p3", "adobe-rgb", "prophoto", "rec2020", "linear")
HIGHLIGHTS = ("recover", "clip")
LAYER_FORMATS = ("tif", "png")
_SPELLINGS = {"tiff": "tif", "jpeg": "jpg"}
BIT_DEPTHS = (16, 8)
NETWORKS = {"fast": "tiny", "best": "small"}
"""The shipped network of each quality."""
QUALITIES = ("auto", *NETWORKS)
LAYERS = ("depth", "blur", "confidence", "disparity")
USUAL_LAYERS = ("depth", "blur", "confidence")
_USUAL_LAYERS_IN: dict[str, tuple[str, ...]] = {"files": (), "dng": ("depth",)}
LAYERS_IN = ("files", "alpha", "photoshop", "darktable", "exr", "dng")
LAYERS_IN_THE_PICTURE = ("alpha", "photoshop")
LAYER_GEOMETRIES = ("upright", "sensor")
LOOKS = ("camera", "neutral")
ORDINARY = ("skip", "single", "vitdeblur")
WHITE_BALANCES = ("camera", "auto", "daylight")
TEMPLATE_FIELDS = ("dir", "stem", "ext", "root", "model")

LARGEST_EXPOSURE_EV = 10
_LEAST_GAIN, _LARGEST_GAIN = 0.01, 100.0


@dataclass(frozen=True)
class RawSettings:
    """How a dual-pixel raw becomes two views."""

    swap: bool = False
    """Exchange left and right. Canon does not document which view the second frame is."""
    shading: bool = True
    """Match gain and colour of the two views, smoothly over the frame."""
    white_balance: str = field(default="camera", metadata=IN_PIXELS_IF_CHANGED)
    """camera (as shot), auto (the mean of the photo is grey), daylight, or three gains "R,G,B",
    each 0.01 to 100."""

    def __post_init__(self) -> None:
        if self.white_balance not in WHITE_BALANCES:
            parse_gains(self.white_balance)


@dataclass(frozen=True)
class RestoreSettings:
    """How two views become one sharp picture."""

    model: str = field(default="auto", metadata=NOT_IN_PIXELS)
    """Name of a shipped network, path of a .safetensors file, or auto, which goes by quality."""
    quality: str = field(default="auto", metadata=NOT_IN_PIXELS)
    """fast (the network tiny), best (small), or auto, best on a GPU and fast on a CPU."""
    protect: bool = field(default=True, metadata=IN_PIXELS_IF_CHANGED)
    """Keep what is in focus as it is, and hold the network back in strong noise."""
    device: str = field(default="auto", metadata=NOT_IN_PIXELS)
    """auto, cpu, cuda, cuda:N."""
    tile: int = field(default=0, metadata=NOT_IN_PIXELS)
    """Side of a tile in px; 0 chooses one that fits the memory."""
    blur: str = "auto"
    """Estimator of the blur map, see ldp.load; auto: the one that the network was trained with."""
    clip_weights: str = field(default=OPENAI, metadata=NOT_IN_PIXELS)
    """Weights of CLIP for the CLIP maps: a tag of open_clip or a file."""
    scale: str = field(default="", metadata=IN_PIXELS_IF_CHANGED)
    """Restore at full size (1), at 1/2, 1/4, 1/8 (2, 4, 8), or auto, as suits each blur; "" for
    auto where that is possible, see `chosen_scale`."""
    whole: bool = field(default=False, metadata=IN_PIXELS_IF_CHANGED)
    """One pass over the whole photo, as networks were published, and no tiles."""
    ordinary: str = field(default="skip", metadata=NOT_IN_PIXELS)
    """What to do with ordinary photos, which have one view: skip, or the network that restores
    them, single (comes with dpbatch) or vitdeblur (needs single_weights)."""
    single_weights: str = field(default="", metadata=NOT_IN_PIXELS)
    """Weights file of the network of ordinary photos; "" for the one that comes with dpbatch."""
    window_stride: int = field(default=94, metadata=NOT_IN_PIXELS)
    """Of vitdeblur: from one window of 320 px to the next; 94 as published, up to 310 faster."""

    def __post_init__(self) -> None:
        _check_choice("blur", self.blur, BLUR_ESTIMATORS)
        object.__setattr__(self, "quality", self.quality.lower())
        _check_choice("quality", self.quality, QUALITIES)
        if self.scale:
            _check_choice("scale", self.scale, SCALES)
        _check_choice("ordinary", self.ordinary, ORDINARY)
        if self.whole and self.chosen_scale != "1":
            raise SettingsError(f"scale {self.scale}: expected 1 for a photo in one pass (whole)")
        if not self.model:
            raise SettingsError("model is empty, expected a name or the path of a .safetensors")
        kind, _, number = self.device.partition(":")
        if not (self.device in ("auto", "cpu", "cuda") or (kind == "cuda" and number.isdecimal())):
            raise SettingsError(f"device {self.device!r}: expected auto, cpu, cuda or cuda:N")
        if self.tile < 0:
            raise SettingsError(f"tile {self.tile}: expected a side in px, or 0 for automatic")

    @property
    def chosen_scale(self) -> str:
        """The scale, with "" settled: auto, but 1 for a photo in one pass, and where what is in
        focus is to be restored like all else, which auto leaves alone."""
        return self.scale or ("1" if self.whole or not self.protect else "auto")


@dataclass(frozen=True)
class OutputSettings:
    """Which files are written, and how."""

    format: str = field(default="tif", metadata=NOT_IN_PIXELS)
    """tif, png, jpg or dng (a raw file for other editors); also as tiff, jpeg and in capitals."""
    bit_depth: int = 16
    """16 or 8; a JPEG always has 8, a DNG 16."""
    template: str = field(default="{dir}/{stem}", metadata=NOT_IN_PIXELS)
    """Name of the output below --out, without suffix: {dir} folder below the given one, {stem} file
    name, {ext} suffix of the input, {root} name of the given folder, {model}."""
    layers: tuple[str, ...] = ()
    """Maps to write, in 16-bit grey: depth (near is white), blur, confidence, which follow the
    outlines of the picture, and disparity, as it was measured."""
    layers_in: str = field(default="files", metadata=IN_PIXELS_IF_CHANGED)
    """files (one for each layer), alpha (channels of the TIFF), photoshop (the TIFF has the
    original, and above it the sharp photo behind a mask), darktable (an RGB PNG for its raster
    masks), exr (one file), dng (the depth map of the DNG)."""
    layer_geometry: str = field(default="upright", metadata=IN_PIXELS_IF_CHANGED)
    """Of layers in files or exr: upright, like the picture, or sensor, as the raw file has it."""
    layer_format: str = field(default="tif", metadata=IN_PIXELS_IF_CHANGED)
    """tif or png; also as tiff and in capitals."""
    jpeg_quality: int = field(default=95, metadata=IN_PIXELS_IF_CHANGED)
    """Quality of a JPEG, 1 to 100."""
    look: str = field(default="camera", metadata=IN_PIXELS_IF_CHANGED)
    """camera (brightness and contrast of the preview in the raw file) or neutral (none of that)."""
    exposure: float = field(default=0.0, metadata=IN_PIXELS_IF_CHANGED)
    """Brightness in EV: 1 doubles the light, -1 halves it."""
    dng: str = field(default="mosaic", metadata=IN_PIXELS_IF_CHANGED)
    """What a DNG holds: mosaic (the camera's own colour filter array) or linear (three colours a
    pixel)."""
    color_space: str = field(default="srgb", metadata=IN_PIXELS_IF_CHANGED)
    """Of a TIFF, PNG or JPEG: srgb, display-p3, adobe-rgb, prophoto, rec2020, or linear (linear
    light, the primaries of prophoto)."""
    highlights: str = field(default="recover", metadata=IN_PIXELS_IF_CHANGED)
    """recover (light up to one stop above white, from the second frame of a raw file: a DNG or an
    EXR holds it, the camera's look rolls it off) or clip."""

    def __post_init__(self) -> None:
        for name in ("format", "layer_format"):
            spelling = getattr(self, name).lower()
            object.__setattr__(self, name, _SPELLINGS.get(spelling, spelling))
        _check_choice("format", self.format, FORMATS)
        _check_choice("layer_format", self.layer_format, LAYER_FORMATS)
        _check_choice("bit_depth", self.bit_depth, BIT_DEPTHS)
        if not 1 <= self.jpeg_quality <= 100:
            raise SettingsError(f"jpeg_quality {self.jpeg_quality}: expected 1 to 100")
        _check_choice("look", self.look, LOOKS)
        _check_choice("dng", self.dng, DNG_KINDS)
        _check_choice("color_space", self.color_space, COLOR_SPACES)
        _check_choice("highlights", self.highlights, HIGHLIGHTS)
        if not abs(self.exposure) <= LARGEST_EXPOSURE_EV:  # true for NaN too
            raise SettingsError(
                f"exposure {self.exposure:g}: expected {-LARGEST_EXPOSURE_EV} to "
                f"{LARGEST_EXPOSURE_EV} EV"
            )
        self._check_layers()
        _check_template(self.template)

    def _check_layers(self) -> None:
        for layer in self.layers:
            _check_choice("layers", layer, LAYERS)
        if len(set(self.layers)) < len(self.layers):
            raise SettingsError(f"layers {', '.join(self.layers)}: each may be named once")
        _check_choice("layers_in", self.layers_in, LAYERS_IN)
        _check_choice("layer_geometry", self.layer_geometry, LAYER_GEOMETRIES)
        if self.layers_in in LAYERS_IN_THE_PICTURE and (self.format, self.bit_depth) != ("tif", 16):
            raise SettingsError(
                f"layers_in {self.layers_in}: such layers are part of a TIFF of 16 bits, and the "
                f"format is {self.format} of {self.bit_depth}; use --format tif"
            )
        if self.layers_in == "dng" and (self.format != "dng" or set(self.layers) - {"depth"}):
            raise SettingsError("layers_in dng: needs --format dng, which holds no layer but depth")
        if self.layers_in == "darktable" and "disparity" in self.layers:
            raise SettingsError("layers disparity: darktable's mask has depth, blur and confidence")

    @property
    def chosen_layers(self) -> tuple[str, ...]:
        """The maps that are written; the usual ones for a form that was chosen without names."""
        if self.layers_in == "photoshop":
            return ()  # its layers are the photo before and after, no maps
        return self.layers or _USUAL_LAYERS_IN.get(self.layers_in, USUAL_LAYERS)


@dataclass(frozen=True)
class Settings:
    """All settings of a photo; see `dpbatch.fingerprints`."""

    raw: RawSettings = field(default_factory=RawSettings)
    restore: RestoreSettings = field(default_factory=RestoreSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    focus: FocusSettings = field(default_factory=FocusSettings, metadata=IN_PIXELS_IF_CHANGED)

    def __post_init__(self) -> None:
        if self.focus.redraws and (self.output.format, self.output.dng) == ("dng", "mosaic"):
            raise SettingsError(
                "refocus and bokeh_shift draw light for every pixel, which a mosaic does not hold; "
                "use --dng linear, or --format tif"
            )


def settle_network(restore: RestoreSettings, has_gpu: bool) -> RestoreSettings:
    """Return the settings with the name of a network in place of auto.

    has_gpu: whether the photos are restored on a GPU.

    Raises SettingsError where both a network and a quality are chosen.
    """
    if restore.model != "auto":
        if restore.quality != "auto":
            both = f"quality {restore.quality} and model {restore.model}"
            raise SettingsError(f"{both}: give one of the two")
        return restore
    quality = restore.quality
    if quality == "auto":
        quality = "best" if has_gpu else "fast"
    return replace(restore, model=NETWORKS[quality])


def settle_blur(settings: Settings, trained_with: str, needs_soft_map: bool = False) -> Settings:
    """Return the settings with the name of an estimator in place of auto.

    trained_with: the estimator of the network's training. needs_soft_map: whether the network reads
        the unnormalised map of CLIP.
    Raises SettingsError for an unknown estimator, or one that does not give what the network or a
    layer needs.
    """
    blur = trained_with if settings.restore.blur == "auto" else settings.restore.blur
    if needs_soft_map and blur != "clip":
        read = "this network reads CLIP's unnormalised map"
        raise SettingsError(f"blur {blur}: {read}; use --blur clip")
    signed = [layer for layer in settings.output.chosen_layers if layer != "blur"]
    if blur in CLIP_MAPS and signed:
        raise SettingsError(
            f"layers {', '.join(signed)}: the blur map {blur!r} has no signed disparity; use "
            "--layers blur or add --blur disparity"
        )
    if blur in CLIP_MAPS and settings.focus.needs_depth:
        raise SettingsError(
            f"focus control goes by the signed disparity, which the blur map {blur!r} does not "
            "have; add --blur disparity"
        )
    return replace(settings, restore=replace(settings.restore, blur=blur))


def settle_scale(restore: RestoreSettings, is_third_party: bool) -> RestoreSettings:
    """Return the settings with scale 1, if none was chosen, for a network of others, whose results
    are to be theirs. is_third_party: see ldp.models.weights.Header."""
    return replace(restore, scale="1") if is_third_party and not restore.scale else restore


def parse_gains(white_balance: str) -> tuple[float, float, float]:
    """Return the gains of red, green and blue of a white balance "R,G,B". Raises SettingsError."""
    try:
        red, green, blue = (float(gain) for gain in white_balance.split(","))
    except ValueError as error:
        raise SettingsError(_unknown_white_balance(white_balance)) from error
    if not all(_LEAST_GAIN <= gain <= _LARGEST_GAIN for gain in (red, green, blue)):
        raise SettingsError(_unknown_white_balance(white_balance))
    return red, green, blue


def _unknown_white_balance(white_balance: str) -> str:
    known = ", ".join(WHITE_BALANCES)
    return (
        f"white_balance {white_balance!r}: expected {known}, or gains R,G,B such as 2.1,1,1.5, "
        f"each {_LEAST_GAIN:g} to {_LARGEST_GAIN:g}"
    )


def _check_template(template: str) -> None:
    known = ", ".join("{" + name + "}" for name in TEMPLATE_FIELDS)
    try:
        for _, _, spec, _ in Formatter().parse(template):
            if spec and re.search(r"\{|\d{3}", spec):
                raise SettingsError(
                    f"template {template!r}: {spec!r} is too wide for a file name; at most 99"
                )
        name = template.format(**dict.fromkeys(TEMPLATE_FIELDS, "x"))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise SettingsError(f"template {template!r}: known fields are {known}") from error
    if not name.strip("/. ") or name.endswith("/"):
        raise SettingsError(f"template {template!r} gives no file name")


def _check_choice(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{name} {value!r}: expected one of {', '.join(map(str, known))}")
