import argparse
import logging

import pytest
import torch

from timm_repaint.engine.epoch import MeanMeter, Micro, ProgressLog, accumulate, mean_lr, updates_per_epoch

ALONE = argparse.Namespace(distributed=False, log_interval=3, rank=0, local_rank=0)
CPU = torch.device('cpu')


def test_mean_meter_weighs_by_samples():
    meter = MeanMeter()
    meter.update(torch.tensor(1.0), 3)
    meter.update(torch.tensor(5.0), 1)
    assert meter.mean(ALONE, CPU) == 2.0
    assert meter.latest == 5.0


def test_mean_meter_takes_weights_that_are_tensors_and_low_precision_values():
    meter = MeanMeter()
    for _ in range(1000):
        meter.update(torch.tensor(1.0, dtype=torch.bfloat16, requires_grad=True), torch.tensor(1.0))
    assert meter.mean(ALONE, CPU) == 1.0  # a bfloat16 sum would have stopped at 256
    assert not meter.total.requires_grad


def test_mean_meter_without_a_sample_has_no_mean():
    assert MeanMeter().mean(ALONE, CPU) is None


def micros(num_batches, accum_steps):
    return list(accumulate(range(num_batches), num_batches, accum_steps))


def test_an_update_ends_after_every_accumulated_batch_and_at_the_epochs_end():
    found = micros(7, 3)
    assert [m.batch for m in found] == [m.batch_idx for m in found] == [0, 1, 2, 3, 4, 5, 6]
    assert [m.update_idx for m in found] == [0, 0, 0, 1, 1, 1, 2]
    assert [m.need_update for m in found] == [False, False, True, False, False, True, True]
    assert [m.last for m in found] == [False] * 6 + [True]


def test_an_incomplete_last_update_averages_over_its_own_batches():
    assert [m.accum_steps for m in micros(8, 3)] == [3, 3, 3, 3, 3, 3, 2, 2]
    assert [m.accum_steps for m in micros(2, 4)] == [2, 2]


@pytest.mark.parametrize(('num_batches', 'accum_steps', 'updates'), [(6, 3, 2), (7, 3, 3), (1, 4, 1), (5, 1, 5)])
def test_updates_of_an_epoch(num_batches, accum_steps, updates):
    assert updates_per_epoch(num_batches, accum_steps) == updates
    assert sum(m.need_update for m in micros(num_batches, accum_steps)) == updates


def test_a_line_is_due_every_interval_and_at_the_end():
    progress = ProgressLog(0, 8, ALONE)
    assert [m.update_idx for m in micros(8, 1) if progress.due(m)] == [0, 3, 6, 7]


def test_the_line_gives_place_share_and_learning_rate(caplog):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    progress = ProgressLog(3, 8, ALONE)
    with caplog.at_level(logging.INFO, logger='timm_repaint'):
        progress.write(Micro(None, 3, 3, 1, True, False), 'loss: 1', optimizer)
    assert 'Train: 3 [   3/8 ( 50%)]  loss: 1' in caplog.text and 'LR: 2.500e-01' in caplog.text


def test_other_processes_do_not_log(caplog):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    second = argparse.Namespace(distributed=True, log_interval=3, rank=1, local_rank=1)
    with caplog.at_level(logging.INFO, logger='timm_repaint'):
        ProgressLog(3, 8, second).write(Micro(None, 3, 3, 1, True, False), 'loss: 1', optimizer)
    assert caplog.text == ''


def test_the_learning_rate_shown_is_the_mean_over_groups():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{'params': weights[:1], 'lr': 0.1}, {'params': weights[1:], 'lr': 0.3}]
    assert mean_lr(torch.optim.SGD(groups, lr=1.0)) == pytest.approx(0.2)
