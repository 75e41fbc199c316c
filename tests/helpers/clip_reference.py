"""CLIP's vision transformer and the two blur maps once more, naively: numpy, float64, loops.

Written from the papers (Radford et al. 2021; Yang et al. 2024, Eq. 4 to 6), without looking after
speed; Pillow does the bicubic resizing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image

Floats = npt.NDArray[np.float64]

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])
HEAD_WIDTH = 16


def tiny_clip(patch_px: int = 8, seed: int = 0) -> open_clip.CLIP:
    """A CLIP of 2 layers with random weights, which takes 4 x 4 patches."""
    torch.manual_seed(seed)
    vision = open_clip.CLIPVisionCfg(
        layers=2, width=32, head_width=HEAD_WIDTH, patch_size=patch_px, image_size=4 * patch_px
    )
    text = open_clip.CLIPTextCfg(width=32, heads=2, layers=1)
    network = open_clip.CLIP(24, vision, text, quick_gelu=True).eval()
    for name, value in network.named_parameters():  # LayerNorms and biases that do something
        if value.ndim == 1:
            torch.nn.init.normal_(value, 1.0 if "ln_" in name else 0.0, 0.2)
    return network


def soft_map(
    network: open_clip.CLIP,
    left: Floats,
    right: Floats,
    blur_prompts: tuple[str, ...],
    dp_prompts: tuple[str, ...],
) -> Floats:
    """The mean of Eq. 4 over blur_prompts and Eq. 6 over dp_prompts; views (H, W, 3) in [0, 1]."""
    of_mean = tokens(network, (left + right) / 2)
    of_pair = tokens(network, np.concatenate([left, right[:, ::-1]], axis=1))
    rows, columns, _ = of_mean.shape
    found = np.zeros((rows, columns))
    for y in range(rows):
        for x in range(columns):
            values = [
                sigmoid(cosine(of_mean[y, x], text_feature(network, prompt)))
                for prompt in blur_prompts
            ]
            alpha = (of_pair[y, x] + of_pair[y, 2 * columns - 1 - x]) / 2
            values += [
                1 - sigmoid(cosine(alpha, text_feature(network, prompt))) for prompt in dp_prompts
            ]
            found[y, x] = sum(values) / len(values)
    return found


def patch_logits(network: open_clip.CLIP, left: Floats, right: Floats, prompt: str) -> Floats:
    """100 * cosine of each 40 px patch of the left view beside the mirrored one of the right."""
    side = network.visual.image_size[0]
    rows, columns = left.shape[0] // 40, left.shape[1] // 40
    found = np.zeros((rows, columns))
    for y in range(rows):
        for x in range(columns):
            place = np.s_[40 * y : 40 * y + 40, 40 * x : 40 * x + 40]
            pair = np.concatenate([left[place], right[place][:, ::-1]], axis=1)
            enlarged = np.clip(resized(pair, side, 2 * side), 0, 1)
            feature = class_feature(network, enlarged[:, side // 2 : side // 2 + side])
            found[y, x] = 100 * cosine(feature, text_feature(network, prompt))
    return found


def text_feature(network: open_clip.CLIP, prompt: str) -> Floats:
    """One prompt at a time, by open_clip itself."""
    with torch.no_grad():
        return network.encode_text(open_clip.tokenize([prompt]))[0].double().numpy()


def tokens(network: open_clip.CLIP, picture: Floats) -> Floats:
    """(rows, columns, features): every patch's token, projected into the space of the texts."""
    last, rows, columns = _last_tokens(network, picture)
    weights = _weights(network)
    found = [_norm(token, weights, "ln_post") @ weights["proj"] for token in last[1:]]
    return np.array(found).reshape(rows, columns, -1)


def class_feature(network: open_clip.CLIP, picture: Floats) -> Floats:
    """The feature of a whole picture."""
    weights = _weights(network)
    return _norm(_last_tokens(network, picture)[0][0], weights, "ln_post") @ weights["proj"]


def resized(picture: Floats, height: int, width: int) -> Floats:
    """(H, W, n) to (height, width, n), bicubic, antialiased where it shrinks."""
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        for plane in picture.transpose(2, 0, 1)
    ]
    return np.stack([np.asarray(plane, np.float64) for plane in planes], axis=2)


def cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _weights(network: open_clip.CLIP) -> dict[str, Floats]:
    return {name: value.double().numpy() for name, value in network.visual.state_dict().items()}


def _last_tokens(network: open_clip.CLIP, picture: Floats) -> tuple[Floats, int, int]:
    weights = _weights(network)
    side = network.visual.patch_size[0]
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    standard = (picture - MEAN) / DEVIATION
    trained = weights["positional_embedding"]
    grid = math.isqrt(len(trained) - 1)
    positions = resized(trained[1:].reshape(grid, grid, -1), rows, columns)
    state = [weights["class_embedding"] + trained[0]]
    for y in range(rows):
        for x in range(columns):
            patch = standard[y * side : (y + 1) * side, x * side : (x + 1) * side]
            kernel = weights["conv1.weight"]
            state.append((kernel * patch.transpose(2, 0, 1)).sum((1, 2, 3)) + positions[y, x])
    found = np.array([_norm(token, weights, "ln_pre") for token in state])
    for block in range(len(network.visual.transformer.resblocks)):
        name = f"transformer.resblocks.{block}."
        normed = np.array([_norm(token, weights, name + "ln_1") for token in found])
        found = found + _attention(normed, weights, name + "attn.")
        for i, token in enumerate(found):
            hidden = _norm(token, weights, name + "ln_2") @ weights[name + "mlp.c_fc.weight"].T
            hidden += weights[name + "mlp.c_fc.bias"]
            hidden = hidden / (1 + np.exp(-1.702 * hidden))  # QuickGELU
            hidden = hidden @ weights[name + "mlp.c_proj.weight"].T
            found[i] = token + hidden + weights[name + "mlp.c_proj.bias"]
    return found, rows, columns


def _attention(state: Floats, weights: dict[str, Floats], name: str) -> Floats:
    mixed = state @ weights[name + "in_proj_weight"].T + weights[name + "in_proj_bias"]
    query, key, value = np.split(mixed, 3, axis=1)
    found = np.zeros_like(state)
    for start in range(0, state.shape[1], HEAD_WIDTH):
        head = slice(start, start + HEAD_WIDTH)
        for i in range(len(state)):
            logits = key[:, head] @ query[i, head] / math.sqrt(HEAD_WIDTH)
            shares = np.exp(logits - logits.max())
            found[i, head] = shares / shares.sum() @ value[:, head]
    return found @ weights[name + "out_proj.weight"].T + weights[name + "out_proj.bias"]


def _norm(token: Floats, weights: dict[str, Floats], name: str) -> Floats:
    centred = token - token.mean()
    scaled = centred / math.sqrt((centred**2).mean() + 1e-5)
    return scaled * weights[name + ".weight"] + weights[name + ".bias"]
