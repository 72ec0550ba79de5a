"""A classifier that is lost: the run says so, ends, and keeps the last good checkpoint."""

import logging
import math

import pytest
import torch

from tests.helpers import REPAINT, SHAPES, column, load_checkpoint, train_here
from tests.tiny import loop_args, tiny_batch, tiny_repaint, tiny_task
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.engine.meters import TrainMeters
from timm_repaint.engine.task_guard import TaskGuard
from timm_repaint.errors import UsageError

CPU = torch.device('cpu')
WEIGHTLESS = (*REPAINT, '--repaint-task-weight', 0)
PAINTER = (*REPAINT[:-2], '--repaint-generator', 'shift')
KINDS = pytest.mark.parametrize('options', [SHAPES, WEIGHTLESS, PAINTER], ids=['plain', 'no task loss', 'painter'])


def finite(checkpoint):
    states = (checkpoint['state_dict'], checkpoint['state_dict_ema'])
    return all(value.isfinite().all() for state in states for value in state.values())


@KINDS
def test_a_run_whose_classifier_is_lost_ends_and_keeps_the_checkpoints_of_before(options, tmp_path, caplog):
    options = (*options, '--epochs', 4, '--model-ema', '--resume', 'auto', '--log-interval', 1)
    run = train_here(tmp_path, *options, '--stop-epoch', 1)
    before = {path.name: path.read_bytes() for path in run.glob('*.pth.tar')}
    with (
        caplog.at_level(logging.INFO, logger='timm_repaint'),
        pytest.raises(UsageError, match=r'the weights of the task network are not finite any more .* a lower --lr'),
    ):
        train_here(tmp_path, *options, '--no-resume-opt', '--lr', 1e30, '--recovery-interval', 100)
    assert {path.name: path.read_bytes() for path in run.glob('*.pth.tar')} == before
    assert 'loss: nan' in caplog.text.lower()
    assert column(run, 'epoch') == [0] and finite(load_checkpoint(run / 'last.pth.tar'))
    run = train_here(tmp_path, *options, '--stop-epoch', 2)
    assert column(run, 'epoch') == [0, 1]


def test_a_recovery_checkpoint_is_not_replaced_by_a_lost_one(tmp_path):
    options = (*SHAPES, '--train-num-samples', 64, '--lr', 1e30, '--recovery-interval', 1, '--epochs', 1)
    with pytest.raises(UsageError, match='the task network'):
        train_here(tmp_path, *options)
    for path in (tmp_path / 'run').glob('*.pth.tar'):
        assert all(value.isfinite().all() for value in load_checkpoint(path)['state_dict'].values()), path


def nan_loss(task, inputs, result):
    return {**result, 'loss': result['loss'] * float('nan')}


def test_after_so_many_batches_in_a_row_a_loss_that_is_not_finite_ends_the_training(caplog):
    task = tiny_task()
    task.register_forward_hook(nan_loss)
    guard = TaskGuard(task, 4, CPU)
    batches = [(batch[:, :3], target) for batch, target in [tiny_batch()] * 20]
    optimizer = torch.optim.SGD(task.parameters(), lr=0.0)
    with pytest.raises(UsageError, match="the task network's loss was not finite in 4 batches in a row"):
        train_one_epoch(0, task, batches, optimizer, loop_args(), task, CPU)
    assert "The task network's loss is not finite: 1 batches so far." in caplog.messages
    with pytest.raises(UsageError, match='not finite any more'):  # lr 0 times nan
        guard.check()


def test_a_loss_that_is_finite_now_and_then_does_not_end_the_training():
    task, turn = tiny_task(), iter(range(100))
    task.register_forward_hook(lambda *args: nan_loss(*args) if next(turn) % 3 else None)
    TaskGuard(task, 3, CPU)
    for _ in range(12):
        with torch.no_grad():
            task(tiny_batch()[0][:, :3], tiny_batch()[1])


def test_what_was_not_finite_at_the_start_is_none_of_the_trainings_doing():
    task = tiny_task()
    statistic = next(b for name, b in task.get_eval_model().named_buffers() if name.endswith('running_var'))
    statistic[0] = math.inf
    guard = TaskGuard(task, 3, CPU)
    guard.check()
    next(task.parameters()).data[0] = math.nan
    with pytest.raises(UsageError, match='1 tensors'):
        guard.check()


def test_an_epoch_whose_loss_is_nan_is_the_last_and_never_the_best(tmp_path, monkeypatch):
    validate = lambda *args, **kwargs: {'loss': math.nan, 'top1': 100.0, 'top5': 100.0}  # noqa: E731
    options = (*SHAPES, '--epochs', 2, '--resume', 'auto')
    run = train_here(tmp_path, *options, '--stop-epoch', 1)
    monkeypatch.setattr('train.validate', validate)
    train_here(tmp_path, *options)
    best, last = (load_checkpoint(run / f'{name}.pth.tar') for name in ('model_best', 'last'))
    assert best['epoch'] == 0 and last['epoch'] == 1 and column(run, 'eval_top1')[1] == 100


def test_a_loss_that_is_nan_stands_in_the_line_and_what_was_not_measured_does_not():
    meters, repaint, (batch, target) = TrainMeters(repaints=True), tiny_repaint(), tiny_batch()
    repaint(batch, target)
    meters.add_task({'loss': torch.tensor(math.nan)}, 4, target, repaint)
    assert meters.text(loop_args(), CPU) == 'loss: nan'
