"""SPADE: normalisation whose scale and shift are maps computed from a condition map, and its residual block.

Source: Repaint equation 1 and Figure 3; SPADE (Park et al., CVPR 2019).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LEAKY_SLOPE = 0.2
# Zeros would tell G where the image's border is: at 2x2 px it paints the same pattern into every image.
PADDING_MODE: Literal['replicate'] = 'replicate'


def repeat_border(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """[B, C, H, W] padded by repeating its border.

    The default compiler (torch 2.14) expects the backward pass of torch's own padding to give channels last where its
    input has them, gets others, and stops at the first batch. So when compiling, the border is repeated by indexing.
    """
    if not torch.compiler.is_compiling():
        return F.pad(x, (left, right, top, bottom), mode='replicate')
    for dim, before, after in ((2, top, bottom), (3, left, right)):
        if before or after:
            positions = torch.arange(-before, x.shape[dim] + after, device=x.device)
            x = x.index_select(dim, positions.clamp(0, x.shape[dim] - 1))
    return x


class BorderConv2d(nn.Conv2d):
    """Convolution whose padding may repeat the border: by `repeat_border`."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != PADDING_MODE:
            return super()._conv_forward(x, weight, bias)
        rows, columns = (int(pad) for pad in self.padding)
        padded = repeat_border(x, columns, columns, rows, rows)
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)


class SpectralConv2d(BorderConv2d):
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

    def forward(self, x: Tensor, given: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, h, w]; by a given weight and bias of `SpectralWeights`."""
        if given is not None:
            return self._conv_forward(x, *given)
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


def channels_last(x: Tensor) -> Tensor:
    """The same [B, C, H, W] with channels next to each other in memory, as convolutions of few channels like it."""
    return x.contiguous(memory_format=torch.channels_last)


def filter_channels(x: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    """Every channel of [B, C, H, W] filtered alike at stride 2; on CPUs much faster than pooling.

    Args:
        x: [B, C, H, W].
        kernel: [k, k].
        padding: zeros around the image.
    Returns:
        [B, C, h, w], of x's type under autocast too.
    """
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, *kernel.shape)
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, weight, stride=2, padding=padding, groups=channels)


def halve_condition(condition: Tensor) -> Tensor:
    """Area resize of [B, K, H, W] to half the size, H and W even: a coarse pixel takes the mean of the codes in it.

    The code under its centre alone would let one small segment colour a block of up to 32 px.
    """
    return filter_channels(condition, torch.full((2, 2), 0.25, device=condition.device))


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
        self.shared = BorderConv2d(cond_channels, hidden, kernel_size=3, padding=1, padding_mode=PADDING_MODE)
        self.gamma_beta = nn.Conv2d(hidden, 2 * channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise and modulate.

        Args:
            x: [B, C, h, w].
            condition: [B, K, h, w], already resized to x.
        Returns:
            [B, C, h, w].
        """
        (features,) = shared_features([self], condition)
        return self.modulate(self.normalise(x), features)

    def modulate(self, normalised: Tensor, features: Tensor) -> Tensor:
        """[B, C, h, w] from `normalise` and [B, hidden, h, w] from `shared_features` -> [B, C, h, w]."""
        conv = self.gamma_beta
        assert conv.bias is not None
        (gamma_weight, beta_weight), (gamma_bias, beta_bias) = conv.weight.chunk(2), conv.bias.chunk(2)
        one_plus_gamma = F.conv2d(features, gamma_weight, gamma_bias + 1, padding=conv.padding)  # [B, C, h, w]
        beta = F.conv2d(features, beta_weight, beta_bias, padding=conv.padding)  # [B, C, h, w]
        return torch.addcmul(beta, normalised, one_plus_gamma)

    def normalise(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same with mean 0 and variance 1 a channel, in training of the batch."""
        if x.numel() > x.shape[1]:
            return self.norm(x)
        # One image of one pixel (32 px at H/32) has no statistics of its own.
        return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)

    def follow(self, other: 'Spade') -> None:
        """Take over the running statistics of a norm that has just seen the same features."""
        if self.norm.training and self.norm.track_running_stats:
            for own, its in zip(self.norm.buffers(), other.norm.buffers(), strict=True):
                own.copy_(its)


def shared_features(spades: Sequence[Spade], condition: Tensor) -> list[Tensor]:
    """What each SPADE makes of one condition [B, K, h, w], in one convolution: [B, hidden, h, w] each."""
    padded = repeat_border(condition, 1, 1, 1, 1)
    weight, bias = (torch.cat([getattr(s.shared, name) for s in spades]) for name in ('weight', 'bias'))
    return [F.relu(features) for features in F.conv2d(padded, weight, bias).chunk(len(spades), dim=1)]


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
        conv: type[nn.Conv2d] = SpectralConv2d if spectral else BorderConv2d
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
        spades = [self.spade_in, self.spade_out, *([self.spade_shortcut] if self.has_shortcut else [])]
        features_in, features_out, *features_shortcut = shared_features(spades, condition)
        normalised, shortcut = self.spade_in.normalise(x), x
        if self.has_shortcut:
            self.spade_shortcut.follow(self.spade_in)
            shortcut = self.conv_shortcut(self.spade_shortcut.modulate(normalised, *features_shortcut))
        y = self.conv_in(F.leaky_relu(self.spade_in.modulate(normalised, features_in), LEAKY_SLOPE))
        y = self.spade_out.modulate(self.spade_out.normalise(y), features_out)
        return shortcut + self.conv_out(F.leaky_relu(y, LEAKY_SLOPE))
