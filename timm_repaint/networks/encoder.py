"""E: image -> mean and log-variance of the latents, one for the picture and, with latent 'segment', one a segment.

Pooling by region follows pix2pixHD's encoder (Wang et al., CVPR 2018); the global head follows SPADE's (Park et al.,
CVPR 2019), Repaint section 3.2.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm_repaint.networks.label_maps import check_choice, pool_segments, resize_labels
from timm_repaint.networks.spade import LEAKY_SLOPE, channels_last
from timm_repaint.precision import at_least_float32

LATENTS = ('segment', 'global')
WORKING_SIZE_PX = 64
LOGVAR_RANGE = (-10.0, 10.0)
PIXEL_STATISTICS = 6  # mean and mean square of red, green and blue


class Posterior(NamedTuple):
    """Distribution of the latents given an image, float32. The segment parts are None with latent 'global'."""

    global_mu: Tensor  # [B, global_dim]
    global_logvar: Tensor  # [B, global_dim], -10..10
    segment_mu: Tensor | None  # [B, 256, segment_dim]
    segment_logvar: Tensor | None  # [B, 256, segment_dim], -10..10
    segment_present: Tensor | None  # [B, 256] bool


class Encoder(nn.Module):
    """Convolutional encoder that looks at a small copy (shorter side about 64 px) of the image.

    A segment's latent sees the mean and mean square of its pixels and the mean of the features at half the copy's size:
    a segment too small for those still has its colour. There are no norm layers: an instance norm would take away the
    absolute colours that the latents are to carry.

    Args:
        latent: 'segment' (a latent a segment and a global one) or 'global' (one for the whole picture).
        global_dim: size of the global latent.
        segment_dim: size of a segment's latent; unused with latent 'global'.
        width: channels of the first layer.
    Raises:
        ValueError: if the latent is unknown.
    """

    def __init__(self, latent: str, global_dim: int, segment_dim: int, width: int):
        super().__init__()
        check_choice('latent', latent, LATENTS)
        self.features = nn.Sequential(
            *self._conv(3, width), *self._conv(width, 2 * width, stride=2), *self._conv(2 * width, 2 * width)
        )
        self.global_features = nn.Sequential(
            *self._conv(2 * width, 4 * width, stride=2), *self._conv(4 * width, 4 * width, stride=2)
        )
        self.global_head = nn.Linear(4 * width, 2 * global_dim)
        self.segment_head = nn.Linear(2 * width + PIXEL_STATISTICS, 2 * segment_dim) if latent == 'segment' else None
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def _conv(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(in_channels, out_channels, 3, stride, padding=1), nn.LeakyReLU(LEAKY_SLOPE)]

    def forward(self, image_pm1: Tensor, slots: Tensor) -> Posterior:
        """Encode a batch.

        Args:
            image_pm1: [B, 3, H, W] in [-1, 1].
            slots: [B, H, W] int64, see `segment_slots`.
        Returns:
            The posterior. A slot without a pixel in the small copy has the prior (mu 0, logvar 0) and is not present.
        """
        height, width = image_pm1.shape[-2:]
        factor = max(1, round(min(height, width) / WORKING_SIZE_PX))
        small = F.adaptive_avg_pool2d(image_pm1, (height // factor, width // factor))  # [B, 3, h, w]
        features = self.features(channels_last(small))  # [B, 2*width, h/2, w/2]
        picture = at_least_float32(self.global_features(features)).mean(dim=(2, 3))  # [B, 4*width]
        global_mu, global_logvar = _split(_linear_float32(self.global_head, picture))  # [B, global_dim] each
        if self.segment_head is None:
            return Posterior(global_mu, global_logvar, None, None, None)
        means, _ = pool_segments(features, resize_labels(slots, features.shape[2:]))  # [B, 256, 2*width]
        pixels = torch.cat([small, small.square()], dim=1)  # [B, 6, h, w]
        colours, present = pool_segments(pixels, resize_labels(slots, small.shape[2:]))
        # Times a mask, as mu 0 and logvar 0 are the prior that absent slots are to have.
        stats = _linear_float32(self.segment_head, torch.cat([means, colours], dim=2)) * present.unsqueeze(2)
        return Posterior(global_mu, global_logvar, *_split(stats), present)


def _linear_float32(layer: nn.Linear, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):  # exp(logvar) overflows float16 above 11
        return layer(at_least_float32(x))


def _split(stats: Tensor) -> tuple[Tensor, Tensor]:
    mu, logvar = stats.chunk(2, dim=-1)
    return mu, logvar.clamp(*LOGVAR_RANGE)
