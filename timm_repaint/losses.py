"""Losses of generator, encoder and discriminator: pure functions, at least float32, with their reductions.

Sources: Repaint section 3.2, equations 2 and 3; pix2pixHD (Wang et al., CVPR 2018) for the multi-scale GAN and feature
matching losses; SPADE (Park et al., CVPR 2019) for the KL divergence.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from timm_repaint.networks.label_maps import check_choice
from timm_repaint.precision import at_least_float32


class GanLoss(NamedTuple):
    """Element-wise terms of a GAN loss, each a function of unbounded logits."""

    real: Callable[[Tensor], Tensor]  # discriminator, on real images
    fake: Callable[[Tensor], Tensor]  # discriminator, on repaints
    generator: Callable[[Tensor], Tensor]  # generator, on repaints


GAN_LOSSES = {
    'hinge': GanLoss(real=lambda x: F.relu(1 - x), fake=lambda x: F.relu(1 + x), generator=torch.neg),
    # Binary cross-entropy on logits; the generator's side is the non-saturating one.
    'original': GanLoss(real=lambda x: F.softplus(-x), fake=F.softplus, generator=lambda x: F.softplus(-x)),
}


def _check_pairs(real: Sequence[Tensor], fake: Sequence[Tensor], what: str) -> None:
    real_shapes, fake_shapes = [tuple(t.shape) for t in real], [tuple(t.shape) for t in fake]
    if not real_shapes or real_shapes != fake_shapes:
        raise ValueError(f'{what}: real {real_shapes} and fake {fake_shapes} must be non-empty and of equal shapes')


def js_divergence(logits: Tensor, other_logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two answers, in nats from 0 to log 2, mean over images: a scalar.

    Args:
        logits: [K, classes].
        other_logits: The same images' in another way.
    """
    answers = torch.stack([at_least_float32(logits), at_least_float32(other_logits)]).log_softmax(2)
    middle = answers.logsumexp(0) - math.log(2)
    return (answers.exp() * (answers - middle)).sum(2).mean()


def discriminator_loss(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor], kind: str = 'hinge') -> Tensor:
    """Loss of the discriminator: real term + fake term, mean over images and patches, then over scales.

    Args:
        real_logits: D on real images, one [B, 1, h, w] a scale, unbounded.
        fake_logits: D on the repaints, same shapes.
        kind: a key of `GAN_LOSSES`.
    Returns:
        Scalar, at least float32.
    Raises:
        ValueError: if the kind is unknown, or the shapes of real and fake logits differ.
    """
    loss = GAN_LOSSES[check_choice('GAN loss', kind, GAN_LOSSES)]
    _check_pairs(real_logits, fake_logits, 'logits')
    real, fake = (at_least_float32(torch.cat([t.flatten() for t in logits])) for logits in (real_logits, fake_logits))
    terms = (loss.real(real) + loss.fake(fake)).split([t.numel() for t in real_logits])
    return torch.stack([scale.mean() for scale in terms]).mean()


def generator_loss(fake_logits: Sequence[Tensor], kind: str = 'hinge') -> Tensor:
    """Loss of the generator: mean over images and patches, then over scales.

    Args:
        fake_logits: D on repaints, one [B, 1, h, w] a scale, unbounded.
        kind: a key of `GAN_LOSSES`.
    Returns:
        Scalar, at least float32.
    Raises:
        ValueError: if the kind is unknown, or there are no logits.
    """
    loss = GAN_LOSSES[check_choice('GAN loss', kind, GAN_LOSSES)]
    if not fake_logits:
        raise ValueError('logits: got no scale, want at least one')
    return torch.stack([loss.generator(at_least_float32(fake)).mean() for fake in fake_logits]).mean()


def feature_matching_loss(
    real_features: Sequence[Sequence[Tensor]], fake_features: Sequence[Sequence[Tensor]]
) -> Tensor:
    """L1 distance of D's features on an image and its repaint: mean a layer, then over all layers of all scales.

    pix2pixHD averages over scales but sums over layers: its value is this one times the number of layers.

    Args:
        real_features: D on real images, [scale][layer] of [B, C, h, w]; detached here.
        fake_features: D on their repaints, same shapes.
    Returns:
        Scalar, at least float32.
    Raises:
        ValueError: if the shapes differ.
    """
    real = [layer for scale in real_features for layer in scale]
    fake = [layer for scale in fake_features for layer in scale]
    _check_pairs(real, fake, 'features')
    return MeanDistance.apply(len(real), *real, *fake)


class MeanDistance(torch.autograd.Function):
    """Mean over pairs of tensors of their mean absolute differences, by functions of all tensors at once.

    torch's own backward pass of the same takes four operators a pair.
    """

    @staticmethod
    def forward(ctx: Any, pairs: int, *tensors: Tensor) -> Tensor:
        """The value, at least float32, of all the first ones and then all the second ones."""
        differences = torch._foreach_sub(tensors[pairs:], tensors[:pairs])
        ctx.save_for_backward(*differences)
        exact = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
        sums = torch._foreach_norm(differences, 1, dtype=exact)
        return torch.stack(torch._foreach_div(sums, [float(pairs * t.numel()) for t in differences])).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        """To the second ones alone."""
        differences = ctx.saved_tensors
        pairs = len(differences)
        gradients = torch._foreach_sign(differences)
        sizes = [t.numel() for t in differences]
        torch._foreach_mul_(gradients, [max(sizes) / size for size in sizes])  # 1 / size is 0 in float16
        torch._foreach_mul_(gradients, (gradient[0] / (pairs * max(sizes))).to(gradients[0].dtype))
        return None, *[None] * pairs, *gradients


def _twice_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """By dimension, twice the divergence from N(0, 1)."""
    mu, logvar = at_least_float32(mu), at_least_float32(logvar)  # exp() overflows float16 above 11
    return torch.addcmul(torch.expm1(logvar) - logvar, mu, mu)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), summed over dimensions, mean over images.

    SPADE sums over the batch: its weight of 0.05 at batch size b is a weight of 0.05 * b here.

    Args:
        mu: [B, Z].
        logvar: [B, Z].
    Returns:
        Scalar, at least float32, not below 0.
    """
    return _twice_kl(mu, logvar).sum() * (0.5 / len(mu))


def segment_kl_divergence(mu: Tensor, logvar: Tensor, present: Tensor) -> Tensor:
    """KL divergence of the segments' latents from N(0, 1), summed over dimensions, mean over all present segments.

    Args:
        mu: [B, S, Z].
        logvar: [B, S, Z].
        present: [B, S] bool, True where the slot holds a segment; the mean is over these, of the whole batch.
    Returns:
        Scalar, at least float32, not below 0; 0 when no segment is present.
    """
    total = torch.where(present[:, :, None], _twice_kl(mu, logvar), 0.0).sum()
    return total / (2 * present.sum()).clamp(min=1)
