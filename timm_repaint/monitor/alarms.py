"""Warnings of what goes wrong in co-training, each with what to try."""

import math

from timm_repaint.config import RepaintConfig
from timm_repaint.log import logger
from timm_repaint.monitor.probe import Leak

# The least loss of a D that says the same of every image: real and fake term at the best constant logit.
UNDECIDED_LOSS = {'hinge': 2.0, 'original': 2 * math.log(2)}
WON_SHARE = 0.025  # 0.05 of the hinge loss
MIN_DIVERSITY = 0.01


class Alarms:
    """Warns of what goes wrong, once each time that it begins."""

    def __init__(self) -> None:
        self.raised: set[str] = set()

    def update(self, found: dict[str, str]) -> None:
        """Log the warnings that were not there before.

        By name; '' where all is well; a name that is absent is unknown and stays as it was.
        """
        for name, warning in found.items():
            if warning and name not in self.raised:
                logger.warning(warning)
        good = {name for name, warning in found.items() if not warning}
        self.raised = (self.raised | found.keys()) - good


def find_alarms(discriminator_loss: float, diversity: float, leak: Leak, settings: RepaintConfig) -> dict[str, str]:
    """What goes wrong, for `Alarms.update`; values that are nan are unknown.

    - D wins outright: its mean loss over an epoch is below 2.5 % of the least loss of a D that says the same of every
      image, that is below 0.05 or 0.035 with the hinge or original loss.
    - The latent has collapsed: the diversity is below 0.01.
    - Repaints leak the class: T is right on repaints of unseen images more often than on the images, beyond chance.

    Args:
        discriminator_loss: D's mean over the epoch.
        diversity: Mean absolute distance of two repaints of an image, pixels in [-1, 1].
        leak: T's accuracies.
        settings: The run's losses and weights.
    """
    undecided = UNDECIDED_LOSS[settings.gan_loss]
    checks = {
        'discriminator': (
            discriminator_loss,
            discriminator_loss < WON_SHARE * undecided,
            f'D wins outright: its mean loss is {discriminator_loss:.2g}, that of one which cannot tell repaints from '
            f'originals {undecided:.2g}; E and G learn little from it. Try a lower --repaint-d-lr, a higher '
            '--repaint-g-lr, or more updates of E and G (--repaint-schedule 1:1).',
        ),
        'diversity': (
            diversity,
            diversity < MIN_DIVERSITY,
            f'The latent has collapsed: two repaints of an image differ by {diversity:.2g} (pixels in [-1, 1]), less '
            f'than {MIN_DIVERSITY}; they add no variety. Try a higher --repaint-segment-kl-weight (now '
            f'{settings.segment_kl_weight:g}; with --repaint-latent global --repaint-kl-weight, now '
            f'{settings.kl_weight:g}), or a lower --repaint-feat-weight (now {settings.feat_weight:g}).',
        ),
        'leak': (
            leak.repaint,
            leak.repaint - leak.original > leak.chance,
            f'Repaints leak the class: on validation images T is right in {leak.repaint:.1f} % of the repaints (with '
            f'the latents of other images in {leak.swapped:.1f} %), but in {leak.original:.1f} % of the originals; '
            f'chance explains {leak.chance:.1f} points. Try a lower --repaint-task-weight (now '
            f'{settings.task_weight:g}) or a higher --repaint-segment-kl-weight (now {settings.segment_kl_weight:g}). '
            'If T sees few originals, it may know repaints better for that alone: lower --repaint-prob (now '
            f'{settings.prob:g}).',
        ),
    }
    return {name: text if bad else '' for name, (value, bad, text) in checks.items() if not math.isnan(value)}
