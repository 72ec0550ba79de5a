"""SPADE: normalisation whose scale and shift are maps computed from a condition map, and its residual block.

Source: Repaint equation 1 and Figure 3; SPADE (Park et al., CVPR 2019).
"""

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrizations import spectral_norm

from timm_repaint.networks.constants import Constants

LEAKY_SLOPE = 0.2
# Zeros would tell G where the image's border is: at 2x2 px it paints the same pattern into every image.
PADDING_MODE: Literal['replicate'] = 'replicate'


def repeat_border(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """[B, C, H, W] padded by repeating its border.

    The default compiler (torch 2.14) expects the backward pass of torch's own padding to give channels last where its
    input has them, gets others, and stops at the first batch. So when compiling, the border is repeated by indexing.
    """
    if not (left or right or top or bottom):
        return x
    if not torch.compiler.is_compiling():
        with torch.autocast(x.device.type, enabled=False):  # which pads in float32, on CPUs
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

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        spectral_norm(self)

    def forward(self, x: Tensor, given: tuple[Tensor, Tensor | None] | None = None) -> Tensor:
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


class HalfSize(Constants):
    """[B, C, H, W] to half the size, rounded up: means of squares of pixels, at the border of those that are there.

    Every channel is filtered alike, on CPUs by a convolution: its backward pass takes an eighth of pooling's time.

    Args:
        side: 2, or 3 with each square one pixel further out.
    """

    kernel: Tensor  # [1, 1, side, side]

    def __init__(self, side: int) -> None:
        super().__init__(kernel=torch.full((1, 1, side, side), 1 / side**2))
        self.side = side
        self._latest: tuple[Any, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, h, w], of x's type under autocast too."""
        padding = self.side - 2
        if x.device.type != 'cpu' or torch.compiler.is_compiling():
            return F.avg_pool2d(x, self.side, 2, padding, count_include_pad=False)
        kernel = self.like('kernel', x).expand(x.shape[1], -1, -1, -1)
        with torch.autocast(x.device.type, enabled=False):
            half = F.conv2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])
            if not padding:
                return half
            return half / self._inside(x)

    def _inside(self, x: Tensor) -> Tensor:
        """[1, 1, h, w]: share of each square's pixels that is inside; kept from batch to batch."""
        kind = (x.shape[2:], x.dtype, x.device)
        if self._latest is None or self._latest[0] != kind:
            ones = torch.ones_like(x[:1, :1], requires_grad=False)
            self._latest = kind, F.conv2d(ones, self.like('kernel', x), None, 2, self.side - 2)
        return self._latest[1]


class Spade(nn.Module):
    """Batch norm without parameters, then `x * (1 + gamma) + beta` with gamma and beta from the condition.

    Args:
        channels: C of the features.
        cond_channels: K of the condition.
        hidden: channels of the 3x3 convolution that gamma and beta share.
        kernel_size: 1 or 3, of the convolution that makes gamma and beta.
        normalises: False for one that modulates what another one has normalised.
    """

    def __init__(self, channels: int, cond_channels: int, hidden: int, kernel_size: int, *, normalises: bool = True):
        super().__init__()
        if normalises:
            self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = BorderConv2d(cond_channels, hidden, kernel_size=3, padding=1, padding_mode=PADDING_MODE)
        self.gamma_beta = nn.Conv2d(hidden, 2 * channels, kernel_size, padding=kernel_size // 2)
        self.ones = Constants(offset=torch.cat([torch.ones(channels), torch.zeros(channels)]))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise and modulate.

        Args:
            x: [B, C, h, w].
            condition: [B, K, h, w], already resized to x.
        Returns:
            [B, C, h, w].
        """
        (weights,) = block_weights([[self]])
        (features,) = weights.features(condition)
        return self.modulate(self.normalise(x), features, *weights.biases)

    def modulate(self, normalised: Tensor, features: Tensor, bias: Tensor) -> Tensor:
        """[B, C, h, w] from `normalise`, and [B, hidden, h, w] and [2 C] of `BlockWeights` -> [B, C, h, w]."""
        conv = self.gamma_beta
        return Modulate.apply(normalised, F.conv2d(features, conv.weight, bias, padding=conv.padding))

    def normalise(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same with mean 0 and variance 1 a channel, in training of the batch."""
        norm = self.norm
        if not norm.training or x.numel() <= x.shape[1]:
            # One image of one pixel (32 px at H/32) has no statistics of its own.
            return F.batch_norm(x, norm.running_mean, norm.running_var, eps=norm.eps)
        kept = (norm.running_mean, norm.running_var) if norm.track_running_stats else (None, None)
        return F.batch_norm(x, *kept, training=True, eps=norm.eps)


class Modulate(torch.autograd.Function):
    """`beta + x * gamma`, [B, C, h, w], of x and both in one [B, 2 C, h, w]; by hand as it takes half the operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma_beta: Tensor) -> Tensor:
        """The value."""
        gamma, beta = gamma_beta.chunk(2, dim=1)
        ctx.save_for_backward(x, gamma)
        return torch.addcmul(beta, x, gamma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, Tensor]:
        """To both."""
        x, gamma = ctx.saved_tensors
        return gradient[0] * gamma, with_product(gradient[0], x, product_first=True)


def with_product(x: Tensor, other: Tensor, product_first: bool) -> Tensor:
    """x and `x * other`, [B, C, h, w], in one [B, 2 C, h, w] that both are written into."""
    if torch.compiler.is_compiling():  # which fuses, but takes no part of a tensor as output
        return torch.cat([x * other, x] if product_first else [x, x * other], dim=1)
    both = x.new_empty(len(x), *x.shape[2:], 2 * x.shape[1]).permute(0, 3, 1, 2)
    first, last = both.chunk(2, dim=1)
    torch.mul(x, other, out=first if product_first else last)
    (last if product_first else first).copy_(x)
    return both


class BlockWeights(NamedTuple):
    """What the SPADEs of a block share or get ready together."""

    weight: Tensor  # [n * hidden, K, 3, 3] of all shared convolutions
    bias: Tensor  # [n * hidden]
    biases: Sequence[Tensor]  # n of [2 C]: 1 + gamma's, then beta's

    def features(self, condition: Tensor) -> tuple[Tensor, ...]:
        """What each SPADE makes of one condition [B, K, h, w], in one convolution: [B, hidden, h, w] each."""
        padded = repeat_border(condition, 1, 1, 1, 1)
        return F.relu(F.conv2d(padded, self.weight, self.bias)).chunk(len(self.biases), dim=1)


def block_weights(blocks: Sequence[Sequence[Spade]]) -> list[BlockWeights]:
    """Of the SPADEs of each block, all at once."""
    spades = [spade for block in blocks for spade in block]
    sizes = [len(block) * block[0].shared.out_channels for block in blocks]
    weights, biases = (torch.cat([getattr(s.shared, name) for s in spades]).split(sizes) for name in ('weight', 'bias'))
    own: list[Any] = [spade.gamma_beta.bias for spade in spades]
    one_more = torch._foreach_add(own, [s.ones.like('offset', bias) for s, bias in zip(spades, own, strict=True)])
    ends = itertools.accumulate(len(block) for block in blocks)
    return [
        BlockWeights(weight, bias, one_more[end - len(block) : end])
        for weight, bias, block, end in zip(weights, biases, blocks, ends, strict=True)
    ]


def upsample(x: Tensor, factor: int) -> Tensor:
    """[B, C, h, w] -> [B, C, factor * h, factor * w], nearest."""
    if factor == 1:
        return x
    with torch.autocast(x.device.type, enabled=False):  # which gives float32, on GPUs
        return F.interpolate(x, scale_factor=factor, mode='nearest')


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
            self.spade_shortcut = Spade(in_channels, cond_channels, hidden, kernel_size, normalises=False)
            self.conv_shortcut = conv(in_channels, out_channels, 1)

    @property
    def spades(self) -> list[Spade]:
        """All of them, in the order of their weights."""
        return [self.spade_in, self.spade_out, *([self.spade_shortcut] if self.has_shortcut else [])]

    def forward(self, x: Tensor, condition: Tensor, weights: BlockWeights | None = None, upscale: int = 1) -> Tensor:
        """Run the block.

        Args:
            x: [B, in_channels, h / upscale, w / upscale], which is upsampled first (nearest).
            condition: [B, K, h, w], once for all of the block's SPADEs.
            weights: Of `block_weights`, where it has got those of several blocks ready.
            upscale: A whole number.
        Returns:
            [B, out_channels, h, w].
        """
        weights = weights or block_weights([self.spades])[0]
        given_in, given_out, *given_shortcut = zip(weights.features(condition), weights.biases, strict=True)
        if self.has_shortcut:  # pixels that come several times have the mean and variance of one
            normalised = upsample(self.spade_in.normalise(x), upscale)
            shortcut = self.conv_shortcut(self.spade_shortcut.modulate(normalised, *given_shortcut[0]))
        else:
            shortcut = upsample(x, upscale)
            normalised = self.spade_in.normalise(shortcut)
        y = self.conv_in(F.leaky_relu(self.spade_in.modulate(normalised, *given_in), LEAKY_SLOPE))
        y = self.spade_out.modulate(self.spade_out.normalise(y), *given_out)
        return shortcut + self.conv_out(F.leaky_relu(y, LEAKY_SLOPE))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(f'{prefix}spade_shortcut.norm.')]:
            del state_dict[key]  # it had a copy of the statistics of spade_in
        super()._load_from_state_dict(state_dict, prefix, *args)
