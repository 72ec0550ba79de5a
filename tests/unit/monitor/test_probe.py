"""What repaints change, on images worked by hand and painters that are known."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import MEAN, STD
from tests.unit.monitor.pictures import Shifting, draws, four_stripes, grey, samples_of
from timm_repaint.config import RepaintConfig
from timm_repaint.monitor.alarms import find_alarms
from timm_repaint.monitor.probe import (
    Leak,
    changed_segments,
    evaluating,
    measure_repaints,
    mixed_order,
    repaint_copies,
)
from timm_repaint.repainter import Repainter

config = partial(RepaintConfig, MEAN, STD)


def checkered(image_pm1, rows, step):
    """The image with every second pixel of some rows brighter by `step`, the others darker, in [0, 1]."""
    result = image_pm1.clone()
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2 - 1.0
    result[:, :, rows] += 2 * step * board[rows]
    return result


def test_a_recoloured_and_a_textured_segment_have_changed_and_untouched_ones_have_not():
    image_pm1, labels = grey(0.5), four_stripes()
    repaint_pm1 = checkered(image_pm1, slice(8, 16), 0.1)  # the deviation grows from 0 to 0.1
    repaint_pm1[:, 0, :8] += 2 * 0.2  # the mean moves by 0.2 in red
    assert changed_segments(image_pm1, image_pm1, labels) == 0
    assert changed_segments(image_pm1, repaint_pm1, labels) == 50


@pytest.mark.parametrize(('shift', 'wanted'), [(0.055, 0), (0.06, 100), (-0.06, 100)])  # a grey: times sqrt(3)
def test_the_colour_limit_is_a_distance_of_a_tenth(shift, wanted):
    assert changed_segments(grey(0.5), grey(0.5 + shift), four_stripes()) == wanted


@pytest.mark.parametrize(
    ('before', 'after', 'wanted'),
    [(0.1, 0.14, 0), (0.1, 0.16, 100), (0.14, 0.1, 0), (0.16, 0.1, 100), (0, 0.019, 0), (0, 0.021, 100), (0.1, 0, 100)],
)
def test_the_texture_limit_is_a_factor_and_flat_segments_do_not_count(before, after, wanted):
    everywhere = slice(0, 32)
    images_pm1 = (checkered(grey(0.5), everywhere, step) for step in (before, after))
    assert changed_segments(*images_pm1, four_stripes()) == wanted


def test_texture_is_that_of_luminance():
    # Red and blue against each other at equal luminance: 0.299 r + 0.114 b is the same in both kinds of pixels.
    repaint_pm1 = grey(0.5)
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2 - 1.0
    repaint_pm1[:, 0] += 0.1 * board
    repaint_pm1[:, 2] -= 0.1 * 0.299 / 0.114 * board
    assert changed_segments(grey(0.5), repaint_pm1, four_stripes()) == 0


def test_segments_below_sixteen_pixels_do_not_count():
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[0, 0, :15] = 1
    labels[0, 31, :16] = 2
    repaint_pm1 = grey(0.5)
    repaint_pm1[0, :, 0, :15] = 1
    assert changed_segments(grey(0.5), repaint_pm1, labels) == 0
    repaint_pm1[0, :, 31, :16] = 1
    assert changed_segments(grey(0.5), repaint_pm1, labels) == 50
    every_pixel = torch.arange(32 * 32).view(1, 32, 32)
    assert np.isnan(changed_segments(grey(0.5), grey(0.9), every_pixel))


def test_a_label_is_another_segment_in_another_image_and_labels_beyond_a_byte_are_apart():
    images_pm1, repaints_pm1 = grey(0.5).repeat(2, 1, 1, 1), grey(0.5).repeat(2, 1, 1, 1)
    labels = torch.cat([four_stripes((0, 256, 512, 65535))] * 2)
    repaints_pm1[1, :, :8] = 1  # one of eight
    assert changed_segments(images_pm1, repaints_pm1, labels) == 12.5


def test_diversity_and_distance_are_mean_absolute_differences():
    samples = samples_of(grey(0.5).repeat(64, 1, 1, 1), four_stripes().repeat(64, 1, 1))
    measured = measure_repaints(Shifting(0.1, 0.4), samples, draws(), batch_size=24)
    steps = torch.cat([torch.randint(2, (n,), generator=g) for g in [draws()] for n in (24, 24, 16) * 2]).view(2, 64)
    assert measured['diversity'] == pytest.approx(0.4 * (steps[0] != steps[1]).float().mean().item(), abs=1e-5)
    assert measured['distance'] == pytest.approx(0.1 + 0.4 * steps.float().mean().item(), abs=1e-5)
    assert measured['changed_segments'] == pytest.approx(100 * steps[0].float().mean().item())  # 0.05, 0.25 in [0, 1]


def test_a_painter_that_always_paints_the_same_raises_the_alarm_of_no_diversity():
    samples = samples_of(grey(0.5).repeat(4, 1, 1, 1), four_stripes().repeat(4, 1, 1))
    measured = measure_repaints(Shifting(0.1, 0.0), samples, draws(), batch_size=4)
    assert measured['diversity'] == 0
    found = find_alarms(1.0, measured['diversity'], Leak(50.0, 45.0, 40.0, 6.0), config(segment_kl_weight=0.3))
    assert (
        'The latent has collapsed' in found['diversity']
        and '--repaint-segment-kl-weight (now 0.3' in found['diversity']
    )
    assert found['discriminator'] == found['leak'] == ''


def test_afterwards_every_part_is_in_the_mode_it_was_in():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Linear(2, 2)).train()
    network[1].eval()
    with pytest.raises(KeyError), evaluating(network):
        assert not any(part.training for part in network.modules()) and not torch.is_grad_enabled()
        raise KeyError
    assert [part.training for part in network.modules()] == [True, True, False, True]
    assert torch.is_grad_enabled()


def test_batches_hold_many_classes_of_images_in_the_order_of_their_classes():
    targets = torch.arange(10).repeat_interleave(20)
    order, back = mixed_order(len(targets))
    assert torch.equal(targets[order][back], targets)
    assert min(len(part.unique()) for part in targets[order].split(20)) >= 6


def test_copies_differ_and_the_same_draws_give_them_again():
    torch.manual_seed(0)
    repainter, samples = Repainter(width=4).eval(), samples_of(torch.rand(3, 3, 32, 32), four_stripes().repeat(3, 1, 1))
    with torch.no_grad():
        first, second = (repaint_copies(repainter, samples, 2, draws(5), batch_size=2) for _ in range(2))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))
    assert not torch.equal(*first)
