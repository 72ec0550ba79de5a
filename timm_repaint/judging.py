"""What E, G and D learn from one batch: D judges it, and from that come the losses of all three.

Source: Repaint (BMVC 2021), section 3.2.
"""

from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from timm_repaint import losses
from timm_repaint.config import RepaintConfig
from timm_repaint.frozen import frozen
from timm_repaint.networks.discriminator import Discriminator, Features, split_logits
from timm_repaint.networks.encoder import Posterior
from timm_repaint.networks.label_maps import Shapes, discriminator_condition
from timm_repaint.precision import at_least_float32

WEIGHTS = {'g_feat': 'feat_weight', 'g_kl': 'kl_weight', 'g_segment_kl': 'segment_kl_weight'}


@dataclass(frozen=True)
class StepMetrics:
    """Losses of one `Repaint.step`, scalars on their device; None where nothing was measured."""

    d_loss: Tensor | None = None
    g_gan: Tensor | None = None
    g_feat: Tensor | None = None
    g_kl: Tensor | None = None
    g_segment_kl: Tensor | None = None

    def as_dict(self) -> dict[str, Tensor]:
        """What was measured, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


class Painted(NamedTuple):
    """What a training forward leaves for its step: K images, their repaints, and what T saw of them."""

    image_pm1: Tensor  # [K, 3, H, W], in autocast's type as all of E, G and D's
    shapes: Shapes  # of K label maps
    repaint_pm1: Tensor  # [K, 3, H, W], with the graph of E and G where they learn
    posterior: Posterior | None
    shown_norm: Tensor  # [K, 3, H, W], a leaf that gets T's gradient where E and G want it
    images_seen: int  # by T, repaints and originals
    statistics: Tensor | None  # running ones of E and G, from before they painted to learn
    autocast: dict[str, Any]


class Judged(NamedTuple):
    """What D says of originals and of their repaints: a list a scale, see `Discriminator`."""

    real: list[Features]
    fake: list[Features]


def judge(discriminator: Discriminator, painted: Painted, num_labels: int | None, learns: bool) -> Judged:
    """D on originals and repaints in one pass, under the same condition; it stays as it is unless it learns."""
    image_pm1 = painted.image_pm1
    condition = discriminator_condition(painted.shapes, num_labels)
    with nullcontext() if learns else frozen(discriminator):
        outputs = discriminator(torch.cat([image_pm1, painted.repaint_pm1]), condition)
    halves = [[layer.chunk(2) for layer in scale] for scale in outputs]
    return Judged(*([[half[side] for half in scale] for scale in halves] for side in (0, 1)))


def d_loss(judged: Judged, gan_loss: str) -> Tensor:
    """D's loss, a scalar."""
    return losses.discriminator_loss(split_logits(judged.real)[0], split_logits(judged.fake)[0], gan_loss)


def generator_losses(judged: Judged, posterior: Posterior | None, gan_loss: str) -> dict[str, Tensor]:
    """E+G's losses but the task's, by their names in `StepMetrics`: scalars, not weighted."""
    assert posterior is not None
    fake_logits, fake_features = split_logits(judged.fake)
    found = {
        'g_gan': losses.generator_loss(fake_logits, gan_loss),
        'g_feat': losses.feature_matching_loss(split_logits(judged.real)[1], fake_features),
        'g_kl': losses.kl_divergence(posterior.global_mu, posterior.global_logvar),
    }
    _, _, mu, logvar, present = posterior
    if mu is not None and logvar is not None and present is not None:
        found['g_segment_kl'] = losses.segment_kl_divergence(mu, logvar, present)
    return found


def weighted_sum(losses: dict[str, Tensor], config: RepaintConfig) -> Tensor:
    """Of `generator_losses`, a scalar."""
    others = (getattr(config, option) * losses[name] for name, option in WEIGHTS.items() if name in losses)
    return sum(others, losses['g_gan'])


def task_slope(painted: Painted, scale: float | Tensor, factor: Tensor) -> Tensor:
    """What T's backward pass says of each pixel of the K repaints, for a mean loss over them: [K, 3, H, W].

    Args:
        painted: With the gradient at `shown_norm`.
        scale: What T's mean loss over the images that it saw was multiplied by.
        factor: Of each channel, [1, 3, 1, 1].

    Raises:
        RuntimeError: if no gradient has reached the repaints.
    """
    gradient = painted.shown_norm.grad
    if gradient is None:
        raise RuntimeError(
            "no gradient has reached the repaints: got none from the network's backward pass; wanted one in E and "
            "G's updates. Call step() after loss.backward(), do not run the network or its backbone under "
            'torch.no_grad() or on detached images (frozen weights alone let gradients through), or set '
            'task_weight=0'
        )
    # With a mean over the N images that T saw the gradient is scale / N at each; wanted is 1 / K, K repaints.
    return at_least_float32(gradient) * (painted.images_seen / len(gradient) / scale * factor)
