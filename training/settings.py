"""Training recipes: one stage, or several one after the other, in a TOML file.

Keys at the top of the file hold for every stage; each `[[stage]]` table changes some of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import msgspec

from ldp.blur.clip_dense import DP_FORMATS, check_prompts
from ldp.blur.clip_model import VIT_B_32
from ldp.blur.estimator import OPENAI, ClipChoice
from ldp.models.network import PRIORS, SIZES, NetworkConfig, Prior
from ldp.models.restormer import RESTORMER_SIZES, RestormerConfig
from ldp.models.vitdeblur import VITDEBLUR_SIZES, ViTDeblurConfig
from training.errors import RecipeError
from training.losses import LossWeights

BLUR_MAPS = ("disparity", "clip")
KERNELS = ("mixed", "fixed")
DEPTHS = ("random", "scene")
CHARBONNIER_PER = ("channel", "pixel")
BLUR_AWARE_FORMS = ("sigmoid", "logit")
# A run has one network, one set of blur maps and one set of patches.
_SAME_IN_ALL_STAGES = (
    "size",
    "views",
    "map_channel",
    "attention",
    "prior",
    "blur",
    "clip_network",
    "clip_weights",
    "prompts",
    "dp_format",
    "blur_aware_form",
    "patch_px",
    "drop_patches",
    "validate_pairs",
    "validate_scenes",
)

_Fits = Callable[[float], bool]
_RANGES: tuple[tuple[str, _Fits, tuple[str, ...]], ...] = (
    (
        "1 or more",
        lambda value: value >= 1,
        (
            "steps",
            "batch",
            "accumulate",
            "save_every",
            "report_every",
            "validate_every",
            "start_scenes",
            "pool_scenes",
            "scene_every",
            "threads",
        ),
    ),
    (
        "0 or more",
        lambda value: 0 <= value < math.inf,
        (
            "validate_pairs",
            "validate_scenes",
            "workers",
            "learning_rate",
            "final_learning_rate",
            "weight_decay",
            "blur_aware_weight",
            "blur_weighting_weight",
            "token_weight",
            "sharpness_weight",
            "rare_radius_px",
            "noise_stops",
        ),
    ),
    ("above 0", lambda x: 0 < x < math.inf, ("gradient_limit", "charbonnier_eps", "radius_px")),
    (
        "from 0 to 1",
        lambda value: 0 <= value <= 1,
        ("in_focus_share", "far_share", "mosaic_share", "jpeg_share"),
    ),
    ("0 or more and below 1", lambda value: 0 <= value < 1, ("ema_decay", "beta2")),
)


@dataclass(frozen=True)
class TrainSettings:
    """One training stage.

    size: one of ldp.models.network.SIZES, or another network: "vitdeblur", "restormer".
    map_channel, attention, prior: how LDP's network reads the blur map, see
    ldp.models.network.NetworkConfig.
    views: 2, or 1 for a network of ordinary photos, trained on the composite of rendered pairs with
    the noise level as its plane (map_channel); it has no attention.
    kernels: "mixed", the family that spans the real cameras, or "fixed", its plainest member.
    noise: whether rendered pairs have any.
    batch: crops a step, over all processes. accumulate: passes a step, each of a part of the batch.
    beta2, weight_decay: AdamW's; without decay it is Adam.
    crop_sizes_px: for rendered pairs, the sides of which each step takes one, with as many crops as
    have about the pixels of `batch` crops of crop_px; none: crop_px at all steps. crop_px stays the
    size that the network's windows of inference are made of.
    token_weight, sharpness_weight, freeze_encoder: of ViTDeblur alone (size = "vitdeblur"): the
    weights of its loss, see training.objectives, and whether its primary encoder stays as it is.
    radius_px: largest radius of a circle of confusion in rendered pairs. rare_radius_px,
    in_focus_share, far_share, depths: see training.simulator.scenes.SceneSettings. mosaic_share: of
    those with noise, the share whose noise is correlated as by a demosaic. noise_stops, jpeg_share:
    see training.simulator.camera.sample_camera; the views of a pair are no JPEGs.
    start_scenes, pool_scenes, scene_every: crops are cut from the newest pool_scenes of the
    rendered scenes, of which there are start_scenes and one more every scene_every steps.
    charbonnier_per: "channel", or "pixel" as in LDP's Eq. 11, see training.losses.charbonnier.
    blur_aware_form: what the blur-aware loss is a mean of: CLIP's map as Eq. 13 has it ("sigmoid"),
    or the cosines that it is the sigmoid of ("logit").
    blur: the estimator of DPDD's blur maps. clip_network, clip_weights: of its maps and of the
    blur-aware loss, see ldp.blur.clip_model.load_clip. prompts, dp_format: of its maps alone, see
    ldp.blur.clip_dense.ClipEstimator.
    patch_px, drop_patches: DPDD's patches, see training.data.dpdd.
    save_every, report_every, validate_every: steps between two checkpoints, two lines of figures
    and two validations, after each of which comes a checkpoint too.
    validate_pairs, validate_scenes: numbers of rendered pairs, and of the given real scenes at
    most, to validate on; 0 for none.
    bf16: where the hardware has such products, see ldp.devices.choose_precision.
    compile: by torch.compile, which costs a minute first.
    """

    size: str = "tiny"
    views: int = 2
    map_channel: bool = True
    attention: bool = True
    prior: Prior = "amount"
    kernels: str = "mixed"
    noise: bool = True
    steps: int = 10_000
    batch: int = 8
    accumulate: int = 1
    crop_px: int = 128
    crop_sizes_px: tuple[int, ...] = ()
    learning_rate: float = 8e-4
    final_learning_rate: float = 1e-6
    warm_up_steps: int = 200
    beta2: float = 0.9
    weight_decay: float = 1e-4
    ema_decay: float = 0.999
    gradient_limit: float = 0.5
    charbonnier_eps: float = 1e-3
    charbonnier_per: str = "channel"
    blur_aware_form: str = "sigmoid"
    blur_aware_weight: float = 0.0
    blur_weighting_weight: float = 0.0
    token_weight: float = 0.2
    sharpness_weight: float = 0.3
    freeze_encoder: bool = False
    radius_px: float = 12.0
    rare_radius_px: float = 0.0
    in_focus_share: float = 0.06
    far_share: float = 0.0
    depths: str = "random"
    mosaic_share: float = 0.0
    noise_stops: float = 0.0
    jpeg_share: float = 0.0
    start_scenes: int = 128
    pool_scenes: int = 1000
    scene_every: int = 4
    blur: str = "disparity"
    clip_network: str = VIT_B_32
    clip_weights: str = OPENAI
    prompts: tuple[str, ...] = ()
    dp_format: str = "mirrored"
    patch_px: int = 512
    drop_patches: int = 8
    workers: int = 1
    threads: int = 1
    save_every: int = 500
    report_every: int = 100
    validate_every: int = 1000
    validate_pairs: int = 16
    validate_scenes: int = 16
    seed: int = 1
    bf16: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        sizes = (*SIZES, *VITDEBLUR_SIZES, *RESTORMER_SIZES)
        known = {
            "size": sizes,
            "views": (2, 1),
            "blur": BLUR_MAPS,
            "kernels": KERNELS,
            "depths": DEPTHS,
            "charbonnier_per": CHARBONNIER_PER,
            "blur_aware_form": BLUR_AWARE_FORMS,
            "dp_format": DP_FORMATS,
        }
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                expected = ", ".join(map(str, values))
                raise RecipeError(f"{name} {value!r}: expected one of {expected}")
        try:
            check_prompts(self.prompts)
        except ValueError as error:
            raise RecipeError(f"prompts: {error}") from error
        if self.prior == "soft" and self.blur != "clip":
            raise RecipeError(f"prior 'soft': only blur 'clip' has it, found {self.blur!r}")
        if self.is_restormer and self.views == 1:
            raise RecipeError(f"views 1: {self.size} restores pairs of views only")
        self._check_crops()
        for expected, fits, names in _RANGES:
            for name in names:
                if not fits(getattr(self, name)):
                    raise RecipeError(f"{name} {getattr(self, name)}: expected {expected}")
        if self.batch % self.accumulate:
            raise RecipeError(f"batch {self.batch}: expected a multiple of accumulate")

    def _check_crops(self) -> None:
        if self.size in VITDEBLUR_SIZES:
            window = VITDEBLUR_SIZES[self.size].window_px
            if self.crop_px != window or self.crop_sizes_px:
                raise RecipeError(f"crop_px {self.crop_px}: {self.size} needs its window, {window}")
            return
        stride = self.network_of_pairs.stride
        for side in (self.crop_px, *self.crop_sizes_px):
            if side not in range(stride, 4097, stride):  # scenes, twice as wide, take gigabytes
                raise RecipeError(
                    f"crop of {side} px: {self.size} needs a multiple of {stride} up to 4096"
                )

    @property
    def is_vitdeblur(self) -> bool:
        """Whether ViTDeblur is trained, and not LDP's network."""
        return self.size in VITDEBLUR_SIZES

    @property
    def is_restormer(self) -> bool:
        """Whether Restormer is trained, and not LDP's network."""
        return self.size in RESTORMER_SIZES

    @property
    def reads_composite(self) -> bool:
        """Whether the network is given one picture, and not two views."""
        return self.views == 1 or self.is_vitdeblur

    @property
    def vitdeblur(self) -> ViTDeblurConfig:
        """The configuration of ViTDeblur where it is trained."""
        return VITDEBLUR_SIZES[self.size]

    @property
    def network_of_pairs(self) -> NetworkConfig | RestormerConfig:
        """The configuration of Restormer where it is trained, else of LDP's network."""
        if self.is_restormer:
            return replace(RESTORMER_SIZES[self.size], crop_px=self.crop_px)
        return self.network

    @property
    def network(self) -> NetworkConfig:
        """The configuration of LDP's network where it is trained."""
        return replace(
            SIZES[self.size],
            crop_px=self.crop_px,
            map_channel=self.map_channel,
            attention=self.attention and self.views == 2,
            prior=self.prior,
            views=self.views,
        )

    @property
    def clip_choice(self) -> ClipChoice:
        """How CLIP's maps are made."""
        network = "" if self.clip_network == VIT_B_32 else self.clip_network
        return ClipChoice(network, self.prompts, self.dp_format)

    @property
    def loss_weights(self) -> LossWeights:
        """The weights of the loss's terms."""
        return LossWeights(
            self.charbonnier_eps,
            self.blur_aware_weight,
            self.blur_weighting_weight,
            per_pixel=self.charbonnier_per == "pixel",
        )


def read_settings(path: Path, changes: Sequence[str] = ()) -> list[TrainSettings]:
    """Read the stages of a TOML file.

    changes: keys that have another value than in the file, in every stage, as "KEY=VALUE"; a value
        that is not TOML is a text.

    Raises RecipeError for unknown keys (listing the known ones), wrong types and wrong values.
    """
    changed = dict(map(_change, changes))
    try:
        shared = msgspec.toml.decode(path.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    tables = shared.pop("stage", [{}])
    if not (isinstance(tables, list) and tables and all(isinstance(t, dict) for t in tables)):
        raise RecipeError(f"{path}: stage is {tables!r}, expected [[stage]] tables")
    try:
        stages = [_stage({**shared, **table, **changed}) for table in tables]
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    for name in _SAME_IN_ALL_STAGES:
        if len({getattr(stage, name) for stage in stages}) > 1:
            raise RecipeError(f"{path}: {name} differs between stages, expected one for the run")
    return stages


def _change(text: str) -> tuple[str, object]:
    """Return the key and the value of "KEY=VALUE". Raises RecipeError for another text."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (equals and key.isidentifier()):
        raise RecipeError(f"{text!r}: expected KEY=VALUE, such as steps=1000 or prior=none")
    try:
        return key, msgspec.toml.decode(f"value = {value}", type=dict[str, object])["value"]
    except msgspec.DecodeError:
        return key, value


def _stage(values: dict[str, object]) -> TrainSettings:
    known = {field.name for field in fields(TrainSettings)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise RecipeError(f"unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    if values.get("prior", "amount") not in PRIORS:
        raise RecipeError(f"prior {values['prior']!r}: expected one of {', '.join(PRIORS)}")
    try:
        return msgspec.convert(values, TrainSettings)
    except msgspec.ValidationError as error:
        raise RecipeError(_explained(error, values)) from error


def _explained(error: msgspec.ValidationError, values: dict[str, object]) -> str:
    """Return msgspec's message in the words of a recipe: "steps: expected int, found '3' (str)"."""
    match = re.fullmatch(r"Expected `(.+)`, got `(.+)` - at `\$\.(\w+).*`", str(error))
    if match is None:
        return str(error)
    expected, found, key = match.groups()
    return f"{key}: expected {expected}, found {values[key]!r} ({found})"
