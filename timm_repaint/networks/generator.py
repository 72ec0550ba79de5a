"""G: condition map and global latent -> repaint of the same size; SPADE residual blocks, nearest upsampling.

Fully convolutional from 1/32 of the size, so every size works. Source: Repaint section 3.2; SPADE (Park et al., CVPR
2019).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from timm_repaint.networks import spade
from timm_repaint.networks.constants import Constants
from timm_repaint.networks.label_maps import check_choice
from timm_repaint.precision import at_least_float32

STRIDE = 32


@dataclass(frozen=True)
class GeneratorSpec:
    """What tells generators apart.

    Args:
        stages: channels of the residual blocks at H/32, H/16, H/8, ...; six stages end at the full size, fewer leave
            the rest to one upsampling of the features, next to the condition at full size.
        hidden: channels of SPADE's shared convolution.
        kernel_size: of SPADE's gamma and beta convolutions, 1 or 3.
        spectral: spectral norm in the residual blocks.
        max_cond_channels: a wider condition goes through a 1x1 convolution to this width first.
    """

    stages: tuple[tuple[int, ...], ...]
    hidden: int
    kernel_size: int
    spectral: bool
    max_cond_channels: int


def _light(width: int) -> GeneratorSpec:
    stages = ((4 * width,), (4 * width,), (2 * width,), (width,), (width,))
    return GeneratorSpec(stages, hidden=width, kernel_size=1, spectral=False, max_cond_channels=max(16, width))


def _spade(width: int) -> GeneratorSpec:
    # The size that SPADE's authors use, seven blocks; the width of the light networks does not change it.
    stages = ((1024,), (1024, 1024), (512,), (256,), (128,), (64,))
    return GeneratorSpec(stages, hidden=128, kernel_size=3, spectral=True, max_cond_channels=256)


GENERATORS: dict[str, Callable[[int], GeneratorSpec]] = {'light': _light, 'spade': _spade}


def generator_spec(name: str, width: int) -> GeneratorSpec:
    """The generator of that name in `GENERATORS`.

    Raises:
        ValueError: if the name is unknown, with the choices.
    """
    return GENERATORS[check_choice('generator', name, GENERATORS)](width)


class ToRgb(nn.Conv2d):
    """3x3 convolution to colour, and with six output channels to gain, which gets 1 on top: zeros keep the detail."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__(channels, out_channels, kernel_size=3, padding=1)
        self.kept = Constants(offset=torch.arange(out_channels).ge(3).float())

    @property
    def shift(self) -> Tensor:
        """[out_channels]."""
        own: Any = self.bias
        return own + self.kept.like('offset', own)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out_channels, H, W]."""
        return F.conv2d(x, self.weight, self.shift, padding=1)


class FullSizeHead(nn.Module):
    """Features at full size -> what `compose` takes.

    Args:
        channels: of the features.
        out_channels: 3 (colour), or 6 (colour and gain of the detail).
    """

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.to_rgb = ToRgb(channels, out_channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[B, C, H, W] and an unused condition -> [B, out_channels, H, W]."""
        return self.to_rgb(F.leaky_relu(x, spade.LEAKY_SLOPE))


class UpsamplingHead(nn.Module):
    """Features at 1/upscale of the size -> what `compose` takes, sharpened by the condition at full size.

    Nearest upsampling, as sub-pixel convolution painted flat segments with a checkerboard.

    Args:
        channels: of the features.
        cond_channels: of the condition.
        out_channels: 3 (colour), or 6 (colour and gain of the detail).
        upscale: factor to the full size.
    """

    def __init__(self, channels: int, cond_channels: int, out_channels: int, upscale: int):
        super().__init__()
        self.to_rgb = ToRgb(channels + cond_channels, out_channels)
        self.taps = Constants(coarse=coarse_taps(upscale))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[B, C, h, w] and [B, K, H, W] -> [B, out_channels, H, W]."""
        weight, cond_weight = self.to_rgb.weight.split([x.shape[1], condition.shape[1]], dim=1)
        coarse: Any = self.taps.coarse
        painted = F.conv2d(condition, cond_weight, self.to_rgb.shift, padding=1)
        return add_upsampled(painted, F.leaky_relu(x, spade.LEAKY_SLOPE), weight, coarse)


def coarse_taps(upscale: int) -> Tensor:
    """[u * u * 9, 9]: which of the 9 taps of each of u * u pixels lie on each of the 9 coarse pixels around."""
    nearest = (torch.arange(upscale)[:, None] + torch.arange(-1, 2)).div(upscale, rounding_mode='floor') + 1  # [u, tap]
    coarse = (nearest[..., None] == torch.arange(3)).float()  # [u, tap, coarse tap]
    return torch.einsum('psi,qtj->pqijst', coarse, coarse).reshape(-1, 9)


def add_upsampled(painted: Tensor, x: Tensor, weight: Tensor, coarse: Tensor) -> Tensor:
    """`painted` plus nearest upsampling and a 3x3 convolution with zeros around, without large tensors in between.

    Each of the upscale^2 pixels of a coarse one sees coarse pixels only, several taps on the same one: the sum of their
    weights is its weight.

    Args:
        painted: [B, O, u*h, u*w].
        x: [B, C, h, w].
        weight: [O, C, 3, 3].
        coarse: [u*u*9, 9] of `coarse_taps`, for a factor u to the full size.
    Returns:
        [B, O, u*h, u*w].
    """
    outputs, channels = weight.shape[:2]
    with torch.autocast(x.device.type, enabled=False):  # sums of weights in float32
        taps = at_least_float32(weight).permute(0, 2, 3, 1).reshape(outputs, 9, channels)
        summed = torch.bmm(coarse.expand(outputs, -1, -1), taps).view(-1, 3, 3, channels)  # [O*u*u, 3, 3, C]
    upscale = round((len(coarse) // 9) ** 0.5)
    shares = F.conv2d(x, summed.permute(0, 3, 1, 2), padding=1).unflatten(1, (outputs, upscale, upscale))
    shares = shares.permute(0, 1, 4, 2, 5, 3)  # [B, O, h, u, w, u]
    pixels = painted.unflatten(3, (-1, upscale)).unflatten(2, (-1, upscale))
    return (pixels + shares).flatten(4).flatten(2, 3)


def compose(painted: Tensor, detail: Tensor | None) -> Tensor:
    """The image [B, 3, H, W] in [-1, 1] from a colour and, where there is detail, its gain.

    Args:
        painted: [B, 3, H, W] colour, or [B, 6, H, W] colour and gain, unbounded. A gain of 1 keeps the detail as it is.
        detail: [B, 3, H, W], what is left of the image without its segments' mean colours; None for none.
    """
    return torch.tanh(painted) if detail is None else Compose.apply(painted, detail.to(painted.dtype))


class Compose(torch.autograd.Function):
    """`tanh(colour + gain * detail)`; no gradient goes to the detail."""

    @staticmethod
    def forward(ctx: Any, painted: Tensor, detail: Tensor) -> Tensor:
        """The value."""
        colour, gain = painted.chunk(2, dim=1)
        value = torch.addcmul(colour, gain, detail).tanh_()
        ctx.save_for_backward(value, detail)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        """To what is painted."""
        value, detail = ctx.saved_tensors
        return spade.with_product(torch.ops.aten.tanh_backward(gradient[0], value), detail, product_first=False), None


class SpadeGenerator(nn.Module):
    """SPADE generator.

    Args:
        cond_channels: K of the condition map.
        latent_dim: Z of the global latent.
        spec: sizes, from `generator_spec`.
        with_detail: whether the repaint is made of given detail in new colours (`compose`).
    """

    def __init__(self, cond_channels: int, latent_dim: int, spec: GeneratorSpec, with_detail: bool = False):
        super().__init__()
        self.narrow, cond_channels = spade.narrow_condition(cond_channels, spec.max_cond_channels)
        channels = spec.stages[0][0]
        self.seed_latent = nn.Linear(latent_dim, channels)
        self.seed_condition = spade.BorderConv2d(cond_channels, channels, 3, padding=1, padding_mode=spade.PADDING_MODE)
        self.stages = nn.ModuleList()
        kind = (cond_channels, spec.hidden, spec.kernel_size)
        for widths in spec.stages:
            pairs = itertools.pairwise([channels, *widths])
            blocks = (spade.SpadeResBlock(*pair, *kind, spectral=spec.spectral) for pair in pairs)
            self.stages.append(nn.ModuleList(blocks))
            channels = widths[-1]
        upscale = STRIDE // 2 ** (len(spec.stages) - 1)
        out_channels = 6 if with_detail else 3
        self.head = (
            UpsamplingHead(channels, cond_channels, out_channels, upscale)
            if upscale > 1
            else FullSizeHead(channels, out_channels)
        )
        self.half_size = spade.HalfSize(2)
        self.to(memory_format=torch.channels_last)

    def forward(self, condition: Tensor, z: Tensor, detail: Tensor | None = None) -> Tensor:
        """Paint a batch.

        Args:
            condition: [B, K, H, W], any H and W; padded inside to a multiple of 32 by repeating the border.
            z: [B, Z] global latent.
            detail: [B, 3, H, W] in [-2, 2], see `compose`; None where the generator was made without.
        Returns:
            [B, 3, H, W] in [-1, 1].
        """
        height, width = condition.shape[-2:]
        condition = spade.repeat_border(spade.channels_last(condition), 0, -width % STRIDE, 0, -height % STRIDE)
        condition = self.narrow(condition)  # [B, K', H', W']
        sizes = [condition]  # at H', H'/2, ... H'/32
        while condition.shape[2] * STRIDE > sizes[0].shape[2]:
            condition = self.half_size(condition)  # the code under its centre would let one small segment colour 32 px
            sizes.append(condition)
        x = self.seed_condition(condition) + self.seed_latent(z)[:, :, None, None]  # [B, C, H'/32, W'/32]
        blocks = [block for block in self.stages.modules() if isinstance(block, spade.SpadeResBlock)]
        weights = iter(spade.block_weights([block.spades for block in blocks]))
        for index, stage in enumerate(self.stages):
            for number, block in enumerate(stage.children()):
                x = block(x, sizes[-1 - index], next(weights), upscale=2 if index > 0 and number == 0 else 1)
        return compose(self.head(x, sizes[0])[:, :, :height, :width], detail)
