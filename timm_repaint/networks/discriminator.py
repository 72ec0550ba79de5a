"""D: (image, condition map) -> real or not, patch by patch at several scales.

Source: multi-scale PatchGAN of pix2pixHD (Wang et al., CVPR 2018), conditional as in SPADE (Park et al., CVPR 2019),
spectral norm (Miyato et al., ICLR 2018).
"""

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm_repaint.networks.spade import LEAKY_SLOPE, HalfSize, SpectralConv2d, narrow_condition
from timm_repaint.networks.spectral import SpectralWeights
from timm_repaint.precision import working_dtype

Features = list[Tensor]
Given = tuple[Tensor, Tensor]  # weight and bias
SMALL_IMAGE_PX = 64  # below, D has a layer less
MIN_WIDTH = 16


class PatchDiscriminator(nn.Module):
    """One scale: strided 4x4 convolutions, one 3x3 convolution, and a 3x3 convolution to the logits.

    Args:
        in_channels: of the image and condition together.
        width: channels of the first layer; the later ones have twice as many.
        num_layers: convolutions ahead of the logits, the last of them without a stride.
    """

    def __init__(self, in_channels: int, width: int, num_layers: int):
        super().__init__()
        channels = [in_channels, width] + [2 * width] * (num_layers - 1)
        pairs = list(itertools.pairwise(channels))
        # A kernel of twice the stride gives G gradients without a checkerboard.
        self.layers = nn.ModuleList(SpectralConv2d(i, o, 4, stride=2, padding=1) for i, o in pairs[:-1])
        self.layers.append(SpectralConv2d(*pairs[-1], 3, padding=1))
        self.logits = SpectralConv2d(channels[-1], 1, 3, padding=1)

    def forward(self, images: Tensor, condition: Tensor, given: Iterator[Given]) -> Features:
        """Judge.

        Args:
            images: [n B, 3, H, W], n batches.
            condition: [B, K, H, W], what the first layer sees beside each of them.
            given: weight and bias of each layer.
        Returns:
            The layers' features, then the logits [n B, 1, h, w].
        """
        weight, bias = next(given)
        of_image, of_condition = weight.split([images.shape[1], condition.shape[1]], dim=1)
        first = self.layers[0]
        beside = first(condition, (of_condition, bias))
        x = (first(images, (of_image, None)).unflatten(0, (-1, len(beside))) + beside).flatten(0, 1)
        outputs = [F.leaky_relu(x, LEAKY_SLOPE)]
        for layer in self.layers[1:]:
            outputs.append(F.leaky_relu(layer(outputs[-1], next(given)), LEAKY_SLOPE))
        return [*outputs, self.logits(outputs[-1], next(given))]


class Discriminator(nn.Module):
    """A patch discriminator a scale, each on half the size of the one before; no weights are shared.

    Args:
        cond_channels: K of the condition map, 0 for none; above 16 or width, a 1x1 convolution narrows it first.
        width: channels of the first layer.
        num_layers: convolutions ahead of the logits, at least 2; one less than that have stride 2.
        num_scales: number of scales, at least 1.
    Raises:
        ValueError: if num_layers is below 2 or num_scales below 1.
    """

    def __init__(self, cond_channels: int, width: int, num_layers: int = 4, num_scales: int = 2):
        super().__init__()
        if num_layers < 2 or num_scales < 1:
            raise ValueError(f'got num_layers {num_layers}, num_scales {num_scales}; want at least 2 and 1')
        self.narrow, cond_channels = narrow_condition(cond_channels, max(16, width), SpectralConv2d)
        self.scales = nn.ModuleList(PatchDiscriminator(3 + cond_channels, width, num_layers) for _ in range(num_scales))
        self.num_layers = num_layers
        # The smallest scale keeps logits of 2x2.
        self.min_size_px = 2 ** (num_layers - 1 + num_scales)
        self.half_size = HalfSize(3)
        self.spectral = SpectralWeights(self._layers)
        self.to(memory_format=torch.channels_last)

    @property
    def _layers(self) -> list[SpectralConv2d]:
        return [layer for layer in self.modules() if isinstance(layer, SpectralConv2d)]

    def forward(self, image_pm1: Tensor, condition: Tensor) -> list[Features]:
        """Judge a batch.

        Args:
            image_pm1: [B, 3, H, W] in [-1, 1].
            condition: [B, K, H, W]; or [B / n, K, H, W] for n batches of images, one behind the other, under one.
        Returns:
            A list a scale: the layers' features, then the logits [B, 1, h, w], unbounded; see `split_logits`.
        Raises:
            ValueError: if the image is too small for the smallest scale.
        """
        height, width = image_pm1.shape[-2:]
        if min(height, width) < self.min_size_px:
            raise ValueError(
                f'the discriminator got {height}x{width} px, needs {self.min_size_px}; use fewer layers or scales'
            )
        dtype = working_dtype(image_pm1)
        image_pm1, condition = image_pm1.to(dtype), condition.to(dtype)
        given = iter(self.spectral(self._layers))
        if isinstance(self.narrow, SpectralConv2d):
            condition = self.narrow(condition, next(given))
        outputs = []
        for index, scale in enumerate(self.scales):
            if index > 0:
                image_pm1, condition = self.half_size(image_pm1), self.half_size(condition)
            outputs.append(scale(image_pm1, condition, given))
        return outputs


def create_discriminator(cond_channels: int, width: int, img_size: int | None) -> Discriminator:
    """D beside a generator of a width, for images whose shorter side has `img_size` px or more (None: 64)."""
    small = img_size is not None and img_size < SMALL_IMAGE_PX
    return Discriminator(cond_channels, max(width, MIN_WIDTH), num_layers=3 if small else 4)


def split_logits(outputs: list[Features]) -> tuple[list[Tensor], list[Features]]:
    """Take D's outputs apart.

    Args:
        outputs: what `Discriminator` returns.
    Returns:
        Logits, one [B, 1, h, w] a scale; and features, [scale][layer] of [B, C, h, w].
    """
    return [scale[-1] for scale in outputs], [scale[:-1] for scale in outputs]
