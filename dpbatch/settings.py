"""Every default of a run, once. TOML presets and flags only override."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace

from dpbatch.errors import SettingsError
from ldp.errors import NEEDS_SOFT_MAP

DEMOSAICS = ("ahd", "ppg", "linear", "dcb", "dht", "vng")
CLIP_MAPS = ("clip", "clip-patch")
BLUR_ESTIMATORS = ("auto", "disparity", *CLIP_MAPS)
FORMATS = ("tif", "png")
BIT_DEPTHS = (16, 8)
LAYERS = ("blur", "disparity")
TEMPLATE_FIELDS = ("dir", "stem", "ext", "root", "model")

# Raised by hand when the same settings and weights give other pixels than the release before.
PIXEL_VERSION = 1

_NOT_IN_PIXELS = {"pixels": False}


@dataclass(frozen=True)
class RawSettings:
    """How a dual-pixel raw becomes two views."""

    swap: bool = False
    """Exchange left and right (which eye the second frame shows is not documented by Canon)."""
    demosaic: str = "ahd"
    """LibRaw's demosaic: ahd, ppg, linear, dcb, dht, vng."""
    shading: bool = True
    """Match the views' gain and colour to each other, smoothly over the frame."""

    def __post_init__(self) -> None:
        _check_choice("demosaic", self.demosaic, DEMOSAICS)


@dataclass(frozen=True)
class RestoreSettings:
    """How two views become one sharp picture."""

    model: str = field(default="tiny", metadata=_NOT_IN_PIXELS)
    """A shipped network's name or the path of a .safetensors file."""
    device: str = field(default="auto", metadata=_NOT_IN_PIXELS)
    """auto, cpu, cuda, cuda:N."""
    tile: int = field(default=0, metadata=_NOT_IN_PIXELS)
    """Tile side in px; 0 lets the program choose."""
    blur: str = "auto"
    """The blur map's estimator: disparity, clip (LDP's paper), clip-patch (LDP's released code);
    auto takes the one that the network was trained with."""
    clip_weights: str = field(default="openai", metadata=_NOT_IN_PIXELS)
    """Of the CLIP maps: one of open_clip's tags or a file."""

    def __post_init__(self) -> None:
        _check_choice("blur", self.blur, BLUR_ESTIMATORS)
        if not self.model:
            raise SettingsError("model is empty, expected a name or the path of a .safetensors")
        kind, _, number = self.device.partition(":")
        if not (self.device in ("auto", "cpu", "cuda") or (kind == "cuda" and number.isdecimal())):
            raise SettingsError(f"device {self.device!r}: expected auto, cpu, cuda or cuda:N")
        if self.tile < 0:
            raise SettingsError(f"tile {self.tile}: expected a side in px, or 0 for automatic")


@dataclass(frozen=True)
class OutputSettings:
    """What is written, and how."""

    format: str = field(default="tif", metadata=_NOT_IN_PIXELS)
    """tif or png."""
    bit_depth: int = 16
    """16 or 8."""
    template: str = field(default="{dir}/{stem}", metadata=_NOT_IN_PIXELS)
    """Output name below --out without its suffix: {dir} folder below the one given, {stem} file
    name, {ext} the input's suffix, {root} name of the folder given, {model}."""
    layers: tuple[str, ...] = ()
    """Any of blur, disparity: written beside the picture as 16-bit grey TIFF."""

    def __post_init__(self) -> None:
        _check_choice("format", self.format, FORMATS)
        _check_choice("bit_depth", self.bit_depth, BIT_DEPTHS)
        for layer in self.layers:
            _check_choice("layers", layer, LAYERS)
        if len(set(self.layers)) < len(self.layers):
            raise SettingsError(f"layers {', '.join(self.layers)}: each may be named once")
        try:
            name = self.template.format(**dict.fromkeys(TEMPLATE_FIELDS, "x"))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            known = ", ".join("{" + name + "}" for name in TEMPLATE_FIELDS)
            raise SettingsError(f"template {self.template!r}: known fields are {known}") from error
        if not name.strip("/. ") or name.endswith("/"):
            raise SettingsError(f"template {self.template!r} gives no file name")


@dataclass(frozen=True)
class Settings:
    """All that decides how a photo comes out; its fingerprint is part of the resume key."""

    raw: RawSettings = field(default_factory=RawSettings)
    restore: RestoreSettings = field(default_factory=RestoreSettings)
    output: OutputSettings = field(default_factory=OutputSettings)


def settle_blur(settings: Settings, trained_with: str, needs_soft_map: bool = False) -> Settings:
    """The settings with the estimator's name in the place of auto.

    trained_with, needs_soft_map: the network's, as ldp.models.weights.Header has them. Raises
    SettingsError for an estimator that is not known, and where the network reads or a layer wants
    what the estimator cannot give.
    """
    blur = trained_with if settings.restore.blur == "auto" else settings.restore.blur
    if needs_soft_map and blur != "clip":
        raise SettingsError(f"--blur {blur}: {NEEDS_SOFT_MAP}")
    if blur != "disparity" and "disparity" in settings.output.layers:
        raise SettingsError(
            f"layers disparity: the blur map {blur!r} knows no signed disparity; leave the layer "
            "out, or take --blur disparity"
        )
    return replace(settings, restore=replace(settings.restore, blur=blur))


def fingerprint(settings: Settings, weights_sha256: str, clip_id: str = "") -> str:
    """What two runs must share so that a result of one need not be made again by the other.

    Covers the settings that change what is written, the content of the network's and of CLIP's
    weights (clip_id: dpbatch.photo.clip_id's) and PIXEL_VERSION. Where the result goes, on which
    device and in which tiles it is computed is left out.
    """
    parts = [PIXEL_VERSION, weights_sha256, clip_id, _pixel_values(settings)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def described(settings: Settings) -> str:
    """The settings on one line, as they are noted in a result: compact JSON."""
    return json.dumps(asdict(settings), separators=(",", ":"))


def _pixel_values(group: object) -> list[object]:
    """[[name, value], ...] of a settings dataclass, sorted by name, groups nested."""
    assert is_dataclass(group)
    values: list[object] = []
    for item in sorted(fields(group), key=lambda item: item.name):
        value = getattr(group, item.name)
        if item.metadata.get("pixels", True):
            values.append([item.name, _pixel_values(value) if is_dataclass(value) else value])
    return values


def _check_choice(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{name} {value!r}: expected one of {', '.join(map(str, known))}")
