"""Weights files: safetensors with the network's configuration in the header.

A shipped network is given by its name, any other file by its path. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ldp.blur.estimator import PAPER_CLIP, ClipChoice
from ldp.errors import UnconvertedError, UnknownModelError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ldp.models.network import LDPNet
    from ldp.models.released import LDPReleased
    from ldp.models.restormer import Restormer
    from ldp.models.vitdeblur import ViTDeblur

    PairNetwork: TypeAlias = LDPNet | LDPReleased | Restormer
    """A network that restores the two views of a photo."""
    _Network = TypeVar("_Network", bound=nn.Module)

SHIPPED = Path(__file__).parents[1] / "weights"

FORMAT = "ldp-1"
"""The format in the header of a weights file of ldp.models.network."""

RELEASED_FORMAT = "ldp-released-1"
"""The format in the header of a weights file of ldp.models.released."""

VITDEBLUR_FORMAT = "vitdeblur-1"
"""The format in the header of a weights file of ldp.models.vitdeblur, a network of one picture."""

RESTORMER_FORMAT = "restormer-1"
"""The format in the header of a weights file of ldp.models.restormer."""

FORMATS = (FORMAT, RELEASED_FORMAT, RESTORMER_FORMAT, VITDEBLUR_FORMAT)

CLIP_CHOICE = "clip_choice"
"""The note in a header that has the fields of a ClipChoice, where it is not the paper's."""

_COUNTS_OF_BLOCKS = (
    "encoder",
    "middle",
    "decoder",
    "attention_below",
    "primary_blocks",
    "contextual_blocks",
    "blocks",
    "refinement",
)
"""Fields of a configuration that are numbers of blocks, or tuples of such."""

_TORCH_MAGIC = (b"PK", b"\x80")  # a zip archive or a pickle: what torch.save writes


@dataclass(frozen=True)
class Header:
    """The header of a weights file.

    config_json: the fields of NetworkConfig, ReleasedConfig, RestormerConfig or ViTDeblurConfig.
    notes: free text, by name.
    """

    format: str
    config_json: str
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def blur_map(self) -> str:
        """The estimator whose maps the network was trained with: disparity, clip, clip-patch."""
        return self.notes.get("blur_map", "disparity")

    @property
    def clip_choice(self) -> ClipChoice:
        """How the estimator `clip` made the maps that the network was trained with."""
        text = self.notes.get(CLIP_CHOICE, "")
        return ClipChoice(**_fields(text)) if text else PAPER_CLIP

    @property
    def training_radius_px(self) -> float | None:
        """The largest circle of confusion that the network was trained on, as a radius."""
        text = self.notes.get("training_radius_px", "")
        try:
            return float(text)
        except ValueError:
            return None

    @property
    def views(self) -> int:
        """How many pictures the network is given: the 2 views of a photo, or 1 picture."""
        return 1 if self.format == VITDEBLUR_FORMAT else int(self.fields.get("views", 2))

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the configuration, lists as tuples."""
        return _fields(self.config_json)

    @property
    def network(self) -> str:
        """The kind of network: LDP's of two views, NAFNet of one view, Restormer or ViTDeblur."""
        if self.format == RESTORMER_FORMAT:
            return "Restormer"
        if self.format == VITDEBLUR_FORMAT:
            return "ViTDeblur"
        return "NAFNet" if self.fields.get("views") == 1 else "LDP"

    @property
    def is_third_party(self) -> bool:
        """Whether it is a network to compare with, the LDP authors' own or Restormer.

        Its results stay as it gives them.
        """
        return self.format in (RELEASED_FORMAT, RESTORMER_FORMAT)

    @property
    def needs_soft_map(self) -> bool:
        """Whether the network reads the unnormalised map, which only `clip` has."""
        return self.fields.get("prior") == "soft"


def shipped_names() -> list[str]:
    """Return the names of the networks that come with the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def resolve(model: str) -> Path:
    """Return the weights file of a shipped network's name, or of a path. Nothing is read.

    Raises UnknownModelError if there is none.
    """
    names = shipped_names()
    if model in names:
        return SHIPPED / f"{model}.safetensors"
    path = Path(model)
    if path.is_file():
        return path
    known = ", ".join(names) if names else "none"
    raise UnknownModelError(
        f"{model}: no such network and no such file; shipped networks: {known}; "
        "give one of these names or the path of a .safetensors file that was trained or converted "
        "with this library"
    )


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_header(path: Path) -> Header:
    """Read the header of a weights file, without its weights.

    Raises WeightsError where the file is not safetensors or not of this library.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            notes = dict(file.metadata() or {})
            tensors = len(file.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if notes.get("format") not in FORMATS or "config" not in notes:
        raise WeightsError(
            f"{path}: the header says format {notes.get('format')!r}, expected "
            f"{' or '.join(map(repr, FORMATS))}; this is not a network of this library"
        )
    header = Header(notes.pop("format"), notes.pop("config"), notes)
    try:
        _check_depth(header.fields, tensors)
        _ = header.clip_choice
    except (ValueError, TypeError) as error:
        raise _unusable(path, error) from error
    return header


def save_network(
    network: PairNetwork | ViTDeblur,
    path: Path,
    notes: dict[str, str] | None = None,
    half: bool = True,
) -> None:
    """Write weights and the network's configuration.

    notes: free text for the header. Header reads `blur_map`, `training_radius_px` and CLIP_CHOICE
        from it.
    half: as float16, else as float32.
    """
    import torch
    from safetensors.torch import save_file

    from ldp.models.released import LDPReleased
    from ldp.models.restormer import Restormer
    from ldp.models.vitdeblur import ViTDeblur

    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in network.state_dict().items()
    }
    kinds: dict[type, str] = {
        LDPReleased: RELEASED_FORMAT,
        Restormer: RESTORMER_FORMAT,
        ViTDeblur: VITDEBLUR_FORMAT,
    }
    kind = kinds.get(type(network), FORMAT)
    header = {"format": kind, "config": json.dumps(asdict(network.config)), **(notes or {})}
    save_file(tensors, path, metadata=header)


def load_network(path: Path) -> PairNetwork:
    """Build the network of a weights file, in float32 and evaluation mode.

    Raises WeightsError where the file is not safetensors, not of this library, damaged, or does not
    fit the network that its header describes, and for a network of single pictures;
    RestormerUnavailableError where the library of a Restormer is missing.
    """
    header = read_header(path)
    if header.format == VITDEBLUR_FORMAT:
        raise WeightsError(
            f"{path}: a network of single pictures ({header.format}), expected one of two views; "
            "load it with ldp.load_single"
        )
    return load_into(path, lambda: _build(header))


def load_into(path: Path, build: Callable[[], _Network]) -> _Network:
    """Build a network and give it the weights of a file, in float32 and evaluation mode.

    build: called where a network takes no memory. Raises WeightsError where the file is not
    safetensors or damaged, and where it does not fit the network.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    try:
        # On the meta device a network takes no memory, whatever its size in the header.
        with torch.device("meta"):
            network = build()
    except (ValueError, TypeError, RuntimeError) as error:
        raise _unusable(path, error) from error
    check_tensors(path, network.state_dict(), tensors)
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def _build(header: Header) -> PairNetwork:
    from ldp.models.network import LDPNet, NetworkConfig
    from ldp.models.released import LDPReleased, ReleasedConfig
    from ldp.models.restormer import Restormer, RestormerConfig

    fields = header.fields
    if header.format == RELEASED_FORMAT:
        return LDPReleased(ReleasedConfig(**fields))
    if header.format == RESTORMER_FORMAT:
        return Restormer(RestormerConfig(**fields))
    # Earlier versions could attend at deeper levels too and wrote the field, empty where unused.
    if fields.pop("attention_below", ()):
        raise ValueError("attention at deeper levels (attention_below) is no longer supported")
    return LDPNet(NetworkConfig(**fields))


def _check_depth(fields: dict[str, Any], tensors: int) -> None:
    """Raise ValueError for a network that would have fewer tensors than blocks.

    Even without memory for weights, a billion blocks take hours to set up.
    """
    blocks = 0
    for name in _COUNTS_OF_BLOCKS:
        value = fields.get(name, 0)
        counts = value if isinstance(value, tuple) else (value,)
        blocks += len(counts) + sum(int(count) for count in counts)
    if blocks > tensors:
        raise ValueError(
            f"it asks for {blocks} levels and blocks, and the file has only {tensors} tensors"
        )


def _unusable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: the network's configuration cannot be used: {error}")


def _unreadable(path: Path, error: Exception) -> WeightsError:
    text = f"{path}: not a readable safetensors file ({error})"
    if _written_by_torch(path):
        return UnconvertedError(
            f"{text}; it looks like a PyTorch checkpoint, and those that the authors of LDP and "
            "ViTDeblur released can be converted by ldp.models.conversion.convert"
        )
    return WeightsError(text)


def _written_by_torch(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2).startswith(_TORCH_MAGIC)
    except OSError:
        return False


def _fields(text: str) -> dict[str, Any]:
    """Return the configuration's fields, lists as tuples. Raises ValueError for other JSON."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"{text[:80]!r} is no JSON object")
    return {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}


def check_tensors(path: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise WeightsError unless `found` has the names and shapes of `expected` and is finite."""
    missing, foreign = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or foreign:
        raise WeightsError(
            f"{path}: {len(missing)} weights are missing (first {missing[:3]}) and {len(foreign)} "
            f"are unknown (first {foreign[:3]}); the file belongs to another network"
        )
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise WeightsError(
                f"{path}: {name} is {tuple(value.shape)}, expected {tuple(expected[name].shape)}; "
                "the file belongs to another network"
            )
        if not value.isfinite().all():
            raise WeightsError(f"{path}: {name} holds NaN or infinity; the file is damaged")
