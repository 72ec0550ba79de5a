"""The leak probe: latents that change places, and painters that tell the class or do not."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import MEAN, STD
from tests.unit.monitor.pictures import Shifting, draws, four_stripes, grey, samples_of
from timm_repaint.config import RepaintConfig
from timm_repaint.monitor.alarms import find_alarms
from timm_repaint.monitor.probe import chance_gain, paired_slots, probe_leak, repaint_swapped, swap_latents
from timm_repaint.networks.encoder import Posterior
from timm_repaint.networks.label_maps import SEGMENT_SLOTS, segment_slots
from timm_repaint.repainter import Repainter

NUM_CLASSES = 3
config = partial(RepaintConfig, MEAN, STD)
COLOURS_PM1 = torch.tensor([[0.8, -0.8, -0.8], [-0.8, 0.8, -0.8], [-0.8, -0.8, 0.8]])  # of the classes


def test_the_kth_segment_is_paired_with_the_kth_of_the_other_image_cyclically():
    present = torch.tensor([[1, 0, 1, 0, 1, 1]]).bool()
    other = torch.tensor([[0, 1, 0, 0, 0, 1]]).bool()
    # Segments 0, 2, 4, 5 get 1, 5, 1, 5; the absent slots 1 and 3 what the ones ahead of them get.
    assert paired_slots(present, other).tolist() == [[1, 1, 5, 5, 1, 5]]
    # The other way round: 1 and 5 get 0 and 2; what is ahead of the first gets the first.
    assert paired_slots(other, present).tolist() == [[0, 0, 0, 0, 0, 2]]


def posterior_of(present_slots, offset):
    """A posterior whose latents tell the image and the slot that they are of."""
    present = torch.zeros(1, SEGMENT_SLOTS, dtype=torch.bool)
    present[0, present_slots] = True
    codes = (offset + torch.arange(float(SEGMENT_SLOTS))).view(1, -1, 1).expand(-1, -1, 2)
    return Posterior(torch.full((1, 4), offset), torch.full((1, 4), -offset), codes, -codes, present)


def test_swapped_latents_are_the_other_images_in_ones_own_slots():
    own, foreign = posterior_of([2, 9, 200], 1000.0), posterior_of([5, 7], 3000.0)
    swapped = swap_latents(own, foreign)
    assert swapped.global_mu.tolist() == [[3000.0] * 4] and swapped.global_logvar.tolist() == [[-3000.0] * 4]
    assert swapped.segment_mu[0, [2, 9, 200]].tolist() == [[3005.0] * 2, [3007.0] * 2, [3005.0] * 2]
    assert torch.equal(swapped.segment_logvar, -swapped.segment_mu)
    assert torch.equal(swapped.segment_present, own.segment_present)


def test_a_global_latent_is_swapped_alone():
    own, foreign = (Posterior(torch.full((1, 4), value), torch.zeros(1, 4), None, None, None) for value in (1.0, 2.0))
    assert swap_latents(own, foreign) is foreign


@pytest.mark.parametrize('options', [{}, {'num_labels': 3}, {'latent': 'global', 'num_labels': 3}], ids=str)
def test_the_latents_of_the_image_half_the_set_away_are_painted_into_ones_own_shapes(options):
    torch.manual_seed(0)
    repainter = Repainter(width=4, temperature=0.0, **options).eval()
    image_pm1 = torch.rand(4, 3, 32, 32) * 2 - 1
    labels = (four_stripes() + torch.arange(4).view(-1, 1, 1)) % 3  # [4, 32, 32]
    with torch.no_grad():
        swapped_pm1 = repaint_swapped(repainter, image_pm1, labels, draws(), batch_size=3)
        for index, other in enumerate((2, 3, 0, 1)):
            own, foreign = (repainter.encoder(image_pm1[[i]], segment_slots(labels[[i]])) for i in (index, other))
            alone_pm1 = repainter.paint(image_pm1[[index]], swap_latents(own, foreign), labels[[index]], draws())
            torch.testing.assert_close(swapped_pm1[[index]], alone_pm1)
            own_pm1 = repainter.paint(image_pm1[[index]], own, labels[[index]], draws())
            assert (alone_pm1 - own_pm1).abs().max() > 1e-4


class MarkEncoder(nn.Module):
    """E that reads the class from a faint mark, the grey level of a corner, which T does not see."""

    def forward(self, image_pm1, slots):
        marks = ((image_pm1[:, 0, 0, 0] + 1) * 127.5).round()
        return Posterior(marks[:, None], torch.full((len(marks), 1), -30.0), None, None, None)


class ColourGenerator(nn.Module):
    """G that paints the whole picture in the colour of the class that the latent tells, or in grey."""

    def __init__(self, tells):
        super().__init__()
        self.tells = tells

    def forward(self, condition, z, detail):
        colours = COLOURS_PM1[z[:, 0].round().long()] if self.tells else torch.zeros(len(z), 3)
        return colours[:, :, None, None].expand(-1, -1, *condition.shape[2:])


def class_painter(tells=True):
    repainter = Repainter(latent='global', width=1)
    repainter.encoder, repainter.generator = MarkEncoder(), ColourGenerator(tells)
    return repainter


def class_samples(count=24):
    """Grey images in the order of their classes, which only a corner tells."""
    targets = [index * NUM_CLASSES // count for index in range(count)]
    samples = samples_of(grey(0.5).repeat(count, 1, 1, 1), four_stripes().repeat(count, 1, 1), targets)
    for image_u8, target in zip(samples.images_u8, targets, strict=True):
        image_u8[0, 0] = target
    return samples


def nearest_colour(shown_pm1):
    """Where a classifier by the mean colour is right about `class_samples`, [N] bool."""
    logits = -(shown_pm1.mean(dim=(2, 3))[:, None] - COLOURS_PM1).square().sum(dim=2)
    return logits.argmax(dim=1) == torch.tensor(class_samples(len(shown_pm1)).targets)


def test_a_generator_that_paints_the_class_raises_the_alarm():
    leak = probe_leak(class_painter(), nearest_colour, class_samples(), draws(), batch_size=7)
    assert leak.original == pytest.approx(100 / 3, abs=0.1)  # grey: all alike
    assert leak.repaint == 100
    assert leak.swapped == 0  # half the set away all images are of another class
    warning = find_alarms(1.0, 0.2, leak, config(task_weight=2.0))['leak']
    assert 'in 100.0 % of the repaints' in warning and 'in 33.3 % of the originals' in warning
    assert '--repaint-task-weight (now 2)' in warning


def test_a_generator_without_the_class_raises_none():
    leak = probe_leak(class_painter(tells=False), nearest_colour, class_samples(), draws(), batch_size=7)
    assert leak.repaint == leak.swapped == pytest.approx(100 / 3, abs=0.1)
    assert find_alarms(1.0, 0.2, leak, config())['leak'] == ''


def test_a_painter_without_latents_has_none_to_swap():
    leak = probe_leak(Shifting(0.0, 0.0), nearest_colour, class_samples(), draws(), batch_size=7)
    assert leak.repaint == leak.original and np.isnan(leak.swapped)


def test_the_batch_size_changes_no_figure():
    first, second = (probe_leak(class_painter(), nearest_colour, class_samples(), draws(), size) for size in (1, 24))
    assert first == second


def test_chance_is_two_standard_errors_of_the_images_that_changed():
    before, after = torch.zeros(100).bool(), torch.zeros(100).bool()
    before[:10], after[6:30] = True, True  # 6 lost, 4 kept, 20 gained: 26 changed
    assert chance_gain(before, after) == pytest.approx(100 * 2 * 26**0.5 / 100)
    assert chance_gain(before, before) == 0
    assert math.isnan(chance_gain(before[:0], after[:0]))  # photographs without objects
