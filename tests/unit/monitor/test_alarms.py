"""Warnings: when they come, how often, and that the options which they name are there."""

import logging
import math
import re
from functools import partial

import pytest
import torch

from tests.tiny import MEAN, STD
from timm_repaint.config import RepaintConfig
from timm_repaint.losses import GAN_LOSSES
from timm_repaint.monitor.alarms import UNDECIDED_LOSS, Alarms, find_alarms
from timm_repaint.monitor.probe import Leak
from timm_repaint.options import build_parser

NO_LEAK = Leak(50.0, 45.0, 40.0, 6.0)
UNKNOWN = Leak(*[math.nan] * 4)
config = partial(RepaintConfig, MEAN, STD)


def test_the_undecided_loss_is_the_least_at_a_constant_logit():
    logits = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    least = {kind: (loss.real(logits) + loss.fake(logits)).min().item() for kind, loss in GAN_LOSSES.items()}
    assert least == pytest.approx(UNDECIDED_LOSS)


@pytest.mark.parametrize(('kind', 'limit'), [('hinge', 0.05), ('original', 0.03466)])
def test_a_discriminator_wins_below_a_fortieth_of_the_undecided_loss(kind, limit):
    own = config(gan_loss=kind)
    assert find_alarms(1.01 * limit, 0.2, NO_LEAK, own)['discriminator'] == ''
    assert 'D wins outright' in find_alarms(0.99 * limit, 0.2, NO_LEAK, own)['discriminator']


@pytest.mark.parametrize(('repaint', 'warns'), [(55.9, False), (56.1, True), (30.0, False)])
def test_a_leak_is_more_than_chance(repaint, warns):
    found = find_alarms(1.0, 0.2, NO_LEAK._replace(repaint=repaint), config())
    assert bool(found['leak']) == warns


def test_what_was_not_measured_is_neither_good_nor_bad():
    assert find_alarms(math.nan, math.nan, UNKNOWN, config()) == {}
    assert find_alarms(math.nan, 0.2, UNKNOWN, config()) == {'diversity': ''}


def test_all_options_that_warnings_name_are_there():
    found = find_alarms(0.0, 0.0, Leak(10.0, 90.0, 5.0, 6.0), config())
    options = set(re.findall(r'--[a-z-]+', ' '.join(found.values())))
    assert {'--repaint-d-lr', '--repaint-segment-kl-weight', '--repaint-task-weight'} <= options
    assert options <= build_parser()._option_string_actions.keys()


def test_a_warning_comes_once_each_time_that_it_becomes_true(caplog):
    alarms = Alarms()
    counts = []
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        for found in ({'a': 'bad'}, {'a': 'still bad', 'b': ''}, {}, {'a': 'bad'}, {'a': ''}, {'a': 'bad', 'b': 'too'}):
            alarms.update(found)
            counts.append(len(caplog.messages))
    assert counts == [1, 1, 1, 1, 1, 3]
    assert caplog.messages == ['bad', 'bad', 'too']
