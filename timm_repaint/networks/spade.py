"""SPADE: normalisation whose scale and shift are maps computed from a condition map, and its residual block.

Source: Repaint equation 1 and Figure 3; SPADE (Park et al., CVPR 2019).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LEAKY_SLOPE = 0.2
# Zeros would tell G where the image's border is: at 2x2 px it paints the same pattern into every image.
PADDING_MODE: Literal['replicate'] = 'replicate'


class SpectralConv2d(nn.Conv2d):
    """Convolution with spectral norm; the norm is computed in float32 under autocast too."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        padding_mode: Literal['zeros', 'replicate'] = 'zeros',
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, padding_mode=padding_mode)
        spectral_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, h, w]."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight  # runs the power iteration
        return self._conv_forward(x, weight, self.bias)


def narrow_condition(cond_channels: int, max_channels: int, conv: type[nn.Conv2d] = nn.Conv2d) -> tuple[nn.Module, int]:
    """A 1x1 convolution to `max_channels` for a wider condition (one-hot of many classes), else nothing.

    Returns:
        The layer, and the number of channels that it gives.
    """
    if cond_channels <= max_channels:
        return nn.Identity(), cond_channels
    return conv(cond_channels, max_channels, 1), max_channels


def resize_condition(condition: Tensor, size_hw: torch.Size | tuple[int, int]) -> Tensor:
    """Area resize of [B, K, H, W] to [B, K, h, w]: a coarse pixel takes the mean of the codes in it.

    The code under its centre alone would let one small segment colour a block of up to 32 px.
    """
    if condition.shape[-2:] == tuple(size_hw):
        return condition
    return F.interpolate(condition, size=tuple(size_hw), mode='area')


class Spade(nn.Module):
    """Batch norm without parameters, then `x * (1 + gamma) + beta` with gamma and beta from the condition.

    Args:
        channels: C of the features.
        cond_channels: K of the condition.
        hidden: channels of the 3x3 convolution that gamma and beta share.
        kernel_size: 1 or 3, of the convolution that makes gamma and beta.
    """

    def __init__(self, channels: int, cond_channels: int, hidden: int, kernel_size: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = nn.Conv2d(cond_channels, hidden, kernel_size=3, padding=1, padding_mode=PADDING_MODE)
        self.gamma_beta = nn.Conv2d(hidden, 2 * channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise and modulate.

        Args:
            x: [B, C, h, w].
            condition: [B, K, h, w], already resized to x.
        Returns:
            [B, C, h, w].
        """
        gamma, beta = self.gamma_beta(F.relu(self.shared(condition))).chunk(2, dim=1)  # [B, C, h, w] each
        return self._normalise(x) * (1 + gamma) + beta

    def _normalise(self, x: Tensor) -> Tensor:
        if x.numel() > x.shape[1]:
            return self.norm(x)
        # One image of one pixel (32 px at H/32) has no statistics of its own.
        return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)


class SpadeResBlock(nn.Module):
    """SPADE, leaky ReLU, 3x3 convolution, twice; plus the input, through SPADE and 1x1 where the width changes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        cond_channels: K of the condition.
        hidden: as in `Spade`.
        kernel_size: as in `Spade`.
        spectral: spectral norm on the block's own convolutions, as full-size SPADE has it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_channels: int,
        hidden: int,
        kernel_size: int,
        *,
        spectral: bool = False,
    ):
        super().__init__()
        conv = SpectralConv2d if spectral else nn.Conv2d
        middle = min(in_channels, out_channels)
        self.spade_in = Spade(in_channels, cond_channels, hidden, kernel_size)
        self.conv_in = conv(in_channels, middle, 3, padding=1, padding_mode=PADDING_MODE)
        self.spade_out = Spade(middle, cond_channels, hidden, kernel_size)
        self.conv_out = conv(middle, out_channels, 3, padding=1, padding_mode=PADDING_MODE)
        self.has_shortcut = in_channels != out_channels
        if self.has_shortcut:
            self.spade_shortcut = Spade(in_channels, cond_channels, hidden, kernel_size)
            self.conv_shortcut = conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: [B, in_channels, h, w].
            condition: [B, K, h, w], already resized to x, once for all of the block's SPADEs.
        Returns:
            [B, out_channels, h, w].
        """
        shortcut = self.conv_shortcut(self.spade_shortcut(x, condition)) if self.has_shortcut else x
        y = self.conv_in(F.leaky_relu(self.spade_in(x, condition), LEAKY_SLOPE))
        y = self.conv_out(F.leaky_relu(self.spade_out(y, condition), LEAKY_SLOPE))
        return shortcut + y
