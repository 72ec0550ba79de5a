import argparse
import io
import logging

import pytest
import torch

from timm_repaint.engine import epoch
from timm_repaint.engine.epoch import MeanMeter, Micro, ProgressLog, accumulate, mean_lr, updates_per_epoch
from timm_repaint.engine.meters import TrainMeters

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
    progress = ProgressLog(0, 8, ALONE, stream=io.StringIO())
    assert [m.update_idx for m in micros(8, 1) if progress.due(m)] == [0, 3, 6, 7]


class Clock:
    """Stands still but for `pass_s`."""

    def __init__(self, monkeypatch):
        self.now_s = 100.0
        monkeypatch.setattr(epoch.time, 'monotonic', lambda: self.now_s)

    def pass_s(self, seconds):
        self.now_s += seconds


def log_epoch(progress, clock):
    """Eight updates of 16 images; the first one takes 10 s, the others 2, a quarter of it in the loader."""
    for micro in micros(8, 1):
        update_s = 2.0 if micro.batch_idx else 10.0
        clock.pass_s(update_s / 4)
        progress.got_batch()
        clock.pass_s(update_s * 3 / 4)
        progress.ran_batch(16)
        progress.updated()
        if progress.due(micro):
            progress.write(micro, 'loss: 1')


def test_a_line_gives_place_speed_wait_and_the_time_that_is_left(caplog, monkeypatch):
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO, logger='timm_repaint'):
        log_epoch(ProgressLog(3, 8, ALONE, 8 * 10, io.StringIO()), clock)
    assert caplog.messages == [
        'Train: 3 [1/8]  loss: 1  2/s  data: 25%  left: ?',
        'Train: 3 [4/8]  loss: 1  8/s  data: 25%  left: 00:08, run 01:44',  # 4 updates, and 6 epochs of 8
        'Train: 3 [7/8]  loss: 1  8/s  data: 25%  left: 00:02, run 01:38',
        'Train: 3 [8/8]  loss: 1  8/s  data: 25%  left: 00:00, run 01:36',
    ]


def test_without_the_runs_end_a_line_tells_of_the_epoch_alone(caplog, monkeypatch):
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO, logger='timm_repaint'):
        log_epoch(ProgressLog(3, 8, ALONE, stream=io.StringIO()), clock)
    assert caplog.messages[1].endswith('left: 00:08')


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_a_bar_moves_and_one_line_stays(caplog, monkeypatch):
    clock, terminal = Clock(monkeypatch), Terminal()
    with caplog.at_level(logging.INFO, logger='timm_repaint'):
        log_epoch(ProgressLog(3, 8, ALONE, 80, terminal), clock)
    assert [message.split('  ')[0] for message in caplog.messages] == ['Train: 3 [8/8]']
    assert 'Epoch 3:' in terminal.getvalue() and '\n' not in terminal.getvalue()


def test_a_line_of_a_long_run_fits_in_120_columns(caplog, monkeypatch):
    clock = Clock(monkeypatch)
    meters = TrainMeters(repaints=True)
    for name in ('hits_repaint', 'hits_original'):
        meters.meters[name].add(torch.tensor(99.0), torch.tensor(1.0))
    meters.meters['loss'].update(torch.tensor(0.0123))
    text = meters.text(ALONE, CPU)
    progress = ProgressLog(150, 12512, ALONE, 12512 * 200, io.StringIO())
    for _ in range(2):
        clock.pass_s(1)
        progress.ran_batch(9_000)
        progress.updated()
    with caplog.at_level(logging.INFO, logger='timm_repaint'):
        progress.write(Micro(None, 12000, 12000, 1, True, False), text)
    (line,) = caplog.messages
    assert len(line) < 120 and 'hits: 99% repaint, 99% original' in line


def test_other_processes_do_not_log(caplog):
    second = argparse.Namespace(distributed=True, log_interval=3, rank=1, local_rank=1)
    with caplog.at_level(logging.INFO, logger='timm_repaint'):
        ProgressLog(3, 8, second, stream=Terminal()).write(Micro(None, 3, 3, 1, True, False), 'loss: 1')
    assert caplog.text == ''


def test_the_learning_rate_shown_is_the_mean_over_groups():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{'params': weights[:1], 'lr': 0.1}, {'params': weights[1:], 'lr': 0.3}]
    assert mean_lr(torch.optim.SGD(groups, lr=1.0)) == pytest.approx(0.2)
