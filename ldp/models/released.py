"""The network of the checkpoint that LDP's authors released, so that their weights can be used.

It differs from the one in the paper, which is ldp.models.network. It was written from the names in
the checkpoint and from what is known of the network's behaviour, without the authors' code. What is
not known is assumed to be as in the networks that it is derived from (NAFNet, Restormer):

- the channel attention has neither a residual nor a norm: its output goes to both `naf.intro` and
  `skip_conv`, and the two branches are added before `output`;
- `naf.intro` and `naf.ending` are 3x3 with a bias, width to width; `skip_conv` replaces NAFNet's
  own residual from its input to its output;
- the map's pooled value (i, j) is added to the logit of query channel i and key channel j, after
  the temperature;
- a picture whose sides are no multiples of 16 is padded with zeros behind the attention, at the
  bottom and on the right;
- `ca.project_out` and `skip_conv` have a bias only if the checkpoint has one;
- training crops are of 256 px, which only the windows of ldp.models.tlc depend on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.models.nafnet import NAFNet
from ldp.models.tlc import CELLS, local_mean
from ldp.types import MapPlane


@dataclass(frozen=True)
class ReleasedConfig:
    """The shape of the released network; the defaults are the release's.

    width, encoder, middle, decoder: as in ldp.models.network.NetworkConfig.
    project_bias, skip_bias: whether `ca.project_out` and `skip_conv` have a bias.
    crop_px: side of the training crops: the window of the global statistics at inference, see
        ldp.models.tlc.
    """

    width: int = 32
    encoder: tuple[int, ...] = (2, 2, 2, 2)
    middle: int = 2
    decoder: tuple[int, ...] = (2, 2, 2, 2)
    project_bias: bool = False
    skip_bias: bool = False
    crop_px: int = 256

    @property
    def stride(self) -> int:
        """The network works on multiples of it; other sizes are padded and cropped again."""
        return 1 << len(self.encoder)

    @property
    def map_planes(self) -> tuple[MapPlane, ...]:
        """The planes of the blur map that the network is given."""
        return ("amount",)

    @property
    def shuffle(self) -> int:
        """The first layer has the pixels of the picture."""
        return 1

    @property
    def pooled_map_side(self) -> int:
        """The network is given the whole photo's map, pooled to a square of this side."""
        return self.width


class ChannelAttention(nn.Module):
    """Attention over channels, whose logits are biased by the whole photo's blur map.

    window: side in pixels of the area over which two channels are compared; None for the whole
        picture, as in training. The photo is divided into cells of an eighth of it; a cell's
        products are summed once, and its pixels are mixed by the sums over the window around it, so
        a window costs no more than the whole picture.
    """

    window: int | None

    def __init__(self, channels: int, project_bias: bool) -> None:
        super().__init__()
        self.window = None
        self.temperature = nn.Parameter(torch.ones(1, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=project_bias)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """Map x (B, C, H, W) and prior (B, 1, C, C), the pooled map, to (B, C, H, W)."""
        batch, channels, height, width = x.shape
        cell_y, cell_x, across = height, width, 1
        if self.window is not None and self.window < max(height, width):
            cell_y = cell_x = max(1, self.window // CELLS)
            across = self.window // cell_y
        # Zeros that fill up the last cells add nothing to any sum.
        grown = F.pad(self.qkv(x), (0, -width % cell_x, 0, -height % cell_y))
        rows, columns = grown.shape[-2] // cell_y, grown.shape[-1] // cell_x
        cells = grown.view(batch, 3, channels, rows, cell_y, columns, cell_x)
        # (3, B, rows, columns, C, pixels of a cell)
        cells = cells.permute(1, 0, 3, 5, 2, 4, 6).flatten(5)
        with _full_precision(x):
            query, key = cells[0].float(), cells[1].float()
            products = _over_windows(query @ key.mT, across)
            query_norm = _over_windows((query**2).sum(-1, keepdim=True), across).sqrt()
            key_norm = _over_windows((key**2).sum(-1, keepdim=True), across).sqrt()
            cosine = products / (query_norm.clamp(min=1e-12) * key_norm.clamp(min=1e-12).mT)
            mixture = torch.softmax(cosine * self.temperature + prior[:, :, None], -1)
        mixed = mixture.to(cells.dtype) @ cells[2]
        mixed = mixed.view(batch, rows, columns, channels, cell_y, cell_x)
        mixed = mixed.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, *grown.shape[-2:])
        projected: Tensor = self.project_out(mixed[..., :height, :width])
        return projected


def _full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Return a context of float32, for sums over tens of thousands of products.

    bfloat16 would leave two digits of them. The meta device, where MACs are counted, has no
    autocast.
    """
    if x.is_meta:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def _over_windows(sums: Tensor, across: int) -> Tensor:
    """Average (B, rows, columns, m, n), a value a cell, over the across x across cells around it.

    The mean takes the place of the sum: in a quotient of two of them the number of cells cancels.
    """
    if sums.shape[1:3] == (1, 1):
        return sums
    planes = sums.flatten(3).permute(0, 3, 1, 2)
    means, _ = local_mean(planes, across)  # narrower than two times CELLS: every value is a cell
    return means.permute(0, 2, 3, 1).view(sums.shape)


class ReleasedNAFNet(NAFNet):
    """NAFNet between two convolutions, for features of any size."""

    def __init__(self, config: ReleasedConfig) -> None:
        super().__init__(config.width, config.encoder, config.middle, config.decoder)
        self.intro = nn.Conv2d(config.width, config.width, 3, padding=1)
        self.ending = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        height, width = x.shape[-2:]
        grown = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        features: Tensor = self.ending(super().forward(self.intro(grown)))
        return features[..., :height, :width]


class PatchEmbedding(nn.Module):
    """The first convolution, under the checkpoint's name for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(6, channels, 3, padding=1, bias=False)

    def forward(self, views: Tensor) -> Tensor:
        """Map views (B, 6, H, W) to (B, C, H, W)."""
        features: Tensor = self.proj(views)
        return features


class LDPReleased(nn.Module):
    """The released network: channel attention biased by the pooled blur map, then a NAFNet.

    Its parameters are named as in the checkpoint, but for NAFBlock's `sca.1`, which is `sca` here
    (ldp.models.conversion renames it).
    """

    def __init__(self, config: ReleasedConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config.width)
        self.ca = ChannelAttention(config.width, config.project_bias)
        self.naf = ReleasedNAFNet(config)
        self.skip_conv = nn.Conv2d(config.width, config.width, 1, bias=config.skip_bias)
        self.output = nn.Conv2d(config.width, 3, 3, padding=1, bias=False)

    def forward(self, views: Tensor, amount: Tensor) -> Tensor:
        """Return the sharp picture, (B, 3, H, W), not clipped.

        views: (B, 6, H, W), left RGB then right RGB, sRGB-encoded, white at 1, of any size.
        amount: (B, 1, h, w), the whole photo's blur map in [0, 1], of any size, since it is pooled
            to width x width. A map that is pooled already stays as it is, so a tile can be given
            the map of its photo.
        """
        prior = F.adaptive_avg_pool2d(amount.float(), self.config.pooled_map_side)
        attended = self.ca(self.patch_embed(views), prior)
        sharp: Tensor = self.output(self.naf(attended) + self.skip_conv(attended))
        return sharp

    def use_local_statistics(self, crop_px: int | None) -> None:
        """Give every global statistic a window of crop_px pixels; None makes it global again."""
        self.ca.window = crop_px
        self.naf.use_local_statistics(crop_px)
