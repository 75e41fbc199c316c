"""CLIP for the blur maps: its weights, features of prompts and features of pictures.

open_clip is an extra, `pip install open_clip_torch`, and is imported only when a CLIP is loaded.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from ldp.blur import clip_resnet
from ldp.blur.estimator import OPENAI
from ldp.errors import ClipUnavailableError

# open_clip's names of OpenAI's networks: their weights were trained with QuickGELU, and under the
# plain names open_clip builds them with GELU.
VIT_B_32 = "ViT-B-32-quickgelu"
VIT_B_16 = "ViT-B-16-quickgelu"
RESNET_50 = "RN50-quickgelu"
NO_WEIGHTS_NEEDED = "the estimator 'disparity' needs none of this"

# Mean and standard deviation of RGB in CLIP's training (Radford et al. 2021).
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

# This many hidden rows of ViT-B, 3072 floats each, stay in a core's cache.
_CACHED_TOKENS = 64

# What torch.load, safetensors and open_clip raise for a file that holds something else.
_NOT_WEIGHTS = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    AttributeError,
    TypeError,
    StopIteration,
    pickle.UnpicklingError,
    SafetensorError,
)


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP whose image encoder is a vision transformer or a ResNet, with frozen weights.

    network: an open_clip.CLIP in evaluation mode. device: where it is.
    """

    network: nn.Module
    device: torch.device

    @property
    def patch_px(self) -> int:
        """Side of the area of a dense feature: 32 for ViT-B/32 and the ResNets."""
        if clip_resnet.is_resnet(self._visual):
            return clip_resnet.STRIDE_PX
        return int(self._visual.patch_size[0])

    @property
    def image_px(self) -> int:
        """Side of the pictures that it was trained on: 224."""
        size = self._visual.image_size
        return int(size[0] if isinstance(size, tuple) else size)

    def text_features(self, prompts: tuple[str, ...]) -> Tensor:
        """Return the features of the prompts, (prompts, features) float32, each of length 1."""
        from open_clip import tokenize

        tokens = tokenize(list(prompts), self.network.context_length)
        with torch.no_grad(), self._precision():
            features: Tensor = self.network.encode_text(tokens.to(self.device))  # type: ignore[operator]
        return F.normalize(features.float(), dim=-1)

    def image_features(self, pictures: Tensor) -> Tensor:
        """Return one feature a picture, (n, features) float32, not normalised.

        pictures: (n, 3, image_px, image_px) RGB, sRGB-encoded, in [0, 1], on the same device.
        """
        with self._precision():
            if clip_resnet.is_resnet(self._visual):
                return self._visual(_standardised(pictures)).float()  # type: ignore[no-any-return]
            tokens, _, _ = self._tokens(pictures)
            features = self._projected(self._encoded(tokens, wanted=1)[:, 0])
        return features.float()

    def dense_features(self, pictures: Tensor) -> Tensor:
        """Return one feature a patch, (n, h, w, features) float32, not normalised.

        The final pooling is left out. Of a transformer, each patch's token goes through the last
        norm and the projection into the texts' space, as only the class token did in training, and
        the position embeddings are interpolated to the grid of the picture (bicubic).

        pictures: (n, 3, h * patch_px, w * patch_px) RGB, sRGB-encoded, in [0, 1].
        """
        with self._precision():
            if clip_resnet.is_resnet(self._visual):
                return clip_resnet.dense_features(self._visual, _standardised(pictures)).float()
            tokens, rows, columns = self._tokens(pictures)
            features = self._projected(self._encoded(tokens)[:, 1:])
        return features.float().reshape(len(pictures), rows, columns, -1)

    @property
    def _visual(self) -> Any:
        return self.network.visual

    def _tokens(self, pictures: Tensor) -> tuple[Tensor, int, int]:
        """Return the transformer's input, (n, 1 + rows * columns, width), and rows, columns."""
        visual = self._visual
        patches: Tensor = visual.conv1(_standardised(pictures))
        count, width, rows, columns = patches.shape
        tokens = patches.flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(tokens.dtype).expand(count, 1, width)
        tokens = torch.cat([first, tokens], 1) + self._positions(rows, columns).to(tokens.dtype)
        return visual.ln_pre(tokens), rows, columns

    def _encoded(self, tokens: Tensor, wanted: int | None = None) -> Tensor:
        """Return the transformer's output for the first `wanted` tokens, None for all."""
        *blocks, last = self._visual.transformer.resblocks
        for block in blocks:
            tokens = _through(block, tokens, None)
        return _through(last, tokens, wanted)

    def _projected(self, tokens: Tensor) -> Tensor:
        visual = self._visual
        features: Tensor = visual.ln_post(tokens) @ visual.proj
        return features

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embeddings, (1 + rows * columns, width), the class token's first."""
        trained: Tensor = self._visual.positional_embedding
        grid = self._visual.grid_size
        if tuple(grid) == (rows, columns):
            return trained
        of_grid = trained[1:].reshape(1, *grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(of_grid, (rows, columns), mode="bicubic", antialias=True)
        return torch.cat([trained[:1], resized[0].flatten(1).T])

    def _precision(self) -> torch.autocast:
        """Return bfloat16 autocast on CUDA; float32 gives the same maps on every CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


def load_clip(name: str, weights: str, device: torch.device) -> Clip:
    """Return a CLIP by open_clip's name; each is loaded once in a process and shared.

    weights: one of open_clip's tags ("openai"), downloaded if it is not in its cache, or a file
        with the network's state: safetensors, a state dict, or OpenAI's TorchScript archive.

    Raises ClipUnavailableError where open_clip or the weights cannot be had, or do not fit.
    """
    return _load(name, weights, str(device))


def forget_clips() -> None:
    """Free the networks that load_clip keeps for the next call with the same arguments."""
    _load.cache_clear()


def clip_weights_file(name: str, weights: str = OPENAI, command: str | None = None) -> Path:
    """Return the file with the weights, downloaded if it is not in open_clip's cache.

    weights: as in load_clip.
    command: what the error recommends on a machine with internet; fetch_command()'s if left out.

    Raises ClipUnavailableError.
    """
    open_clip = _import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights in tags:
        entry = open_clip.get_pretrained_cfg(name, weights)
        try:
            if cached_clip_weights(name, weights) is None:
                _reach_hub(entry)
            return Path(open_clip.download_pretrained(entry))
        except (OSError, RuntimeError) as error:
            raise ClipUnavailableError(
                f"CLIP {name}: the weights {weights!r} are not in the cache and could not be "
                f"downloaded ({error}). On a machine with internet run\n"
                f"  {command or fetch_command(name, weights)}\n"
                "and copy its cache, or give a file with the weights; " + NO_WEIGHTS_NEEDED
            ) from error
    path = Path(weights)
    if not path.is_file():
        raise ClipUnavailableError(
            f"CLIP {name}: {weights!r} is no file and none of open_clip's tags "
            f"({', '.join(tags) or 'none for this network'}); {NO_WEIGHTS_NEEDED}"
        )
    return path


def _reach_hub(entry: dict[str, str]) -> None:
    """Raise ConnectionError where the server with the weights cannot be reached.

    It is asked once: a download tries for more than a minute before it says so.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    if not entry.get("hf_hub"):
        return
    try:
        get_hf_file_metadata(hf_hub_url(entry["hf_hub"].rstrip("/"), "README.md"))
    except HfHubHTTPError:  # an answer; the download says what is wrong
        return
    except Exception as error:  # of whatever library huggingface_hub uses
        raise ConnectionError(str(error)) from error


def cached_clip_weights(name: str, weights: str = OPENAI) -> Path | None:
    """Return the file of one of open_clip's tags, None where it is not in the cache.

    Raises ClipUnavailableError where open_clip is not installed.
    """
    open_clip = _import_open_clip()
    from huggingface_hub import try_to_load_from_cache

    repository = open_clip.get_pretrained_cfg(name, weights).get("hf_hub", "").rstrip("/")
    if not repository:
        return None
    constants = open_clip.constants
    for file in (constants.HF_SAFE_WEIGHTS_NAME, constants.HF_WEIGHTS_NAME):
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def fetch_command(name: str, weights: str = OPENAI) -> str:
    """Return the shell command that downloads the weights into open_clip's cache."""
    return (
        f"python -c \"import open_clip; open_clip.create_model('{name}', pretrained='{weights}')\""
    )


@lru_cache(maxsize=4)
def _load(name: str, weights: str, device: str) -> Clip:
    open_clip = _import_open_clip()
    path = clip_weights_file(name, weights)
    try:
        if _is_torchscript(path):
            state = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
            network = open_clip.create_model(name, load_weights=False)
            wanted = network.state_dict()
            network.load_state_dict({key: state[key] for key in wanted})
        else:
            network = open_clip.create_model(name, pretrained=str(path))
    except _NOT_WEIGHTS as error:
        raise ClipUnavailableError(
            f"{path}: not the weights of CLIP {name} ({type(error).__name__}: "
            f"{str(error)[:200]}); {NO_WEIGHTS_NEEDED}"
        ) from error
    return frozen(network, torch.device(device))


def frozen(network: nn.Module, device: torch.device) -> Clip:
    """Move an open_clip.CLIP to a device and freeze its weights.

    Raises ClipUnavailableError for an image encoder of another kind than Clip's.
    """
    visual = network.visual
    if not (clip_resnet.is_resnet(visual) or hasattr(visual, "patch_size")):
        raise ClipUnavailableError(
            f"an image encoder of the kind {type(visual).__name__}: expected a vision transformer "
            f"or one of OpenAI's ResNets, such as {VIT_B_32} or {RESNET_50}"
        )
    return Clip(network.to(device).eval().requires_grad_(False), device)


def _import_open_clip() -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise ClipUnavailableError(
            f"CLIP maps need open_clip ({error}): pip install open_clip_torch; {NO_WEIGHTS_NEEDED}"
        ) from error
    return open_clip  # type: ignore[no-any-return]


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _standardised(pictures: Tensor) -> Tensor:
    mean, deviation = (pictures.new_tensor(x)[:, None, None] for x in (_MEAN, _DEVIATION))
    return (pictures - mean) / deviation


def _through(block: Any, tokens: Tensor, wanted: int | None) -> Tensor:
    """Return the first `wanted` tokens after one of open_clip's ResidualAttentionBlock."""
    attended = _attention(block.attn, block.ln_1(tokens), wanted)
    tokens = tokens[:, :wanted] + block.ls_1(attended)
    return tokens + block.ls_2(_feed_forward(block.mlp, block.ln_2(tokens)))  # type: ignore[no-any-return]


def _feed_forward(mlp: Any, tokens: Tensor) -> Tensor:
    """Apply open_clip's mlp; on a CPU without gradients, activate its hidden values in parts.

    In place, too: the hidden values of a batch are far larger than any cache.
    """
    if tokens.is_cuda or torch.is_grad_enabled():
        return mlp(tokens)  # type: ignore[no-any-return]
    hidden: Tensor = mlp.c_fc(tokens)
    for part in torch.split(hidden.flatten(0, 1), _CACHED_TOKENS):
        part.copy_(mlp.gelu(part))
    return mlp.c_proj(hidden)  # type: ignore[no-any-return]


def _attention(attention: nn.MultiheadAttention, tokens: Tensor, wanted: int | None) -> Tensor:
    """Return the attention of the first `wanted` tokens over all of them.

    nn.MultiheadAttention itself is twice as slow here: its inference path keeps all pairs of
    tokens, of which a large picture has millions, and its other path transposes the batch.
    """
    count, length, width = tokens.shape
    mixed = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    mixed = mixed.reshape(count, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = mixed.unbind(0)
    taken = F.scaled_dot_product_attention(query[:, :, :wanted], key, value)
    found: Tensor = attention.out_proj(taken.transpose(1, 2).reshape(count, -1, width))
    return found
