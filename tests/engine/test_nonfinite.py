"""Losses that are not finite: the update is skipped, nothing is spoilt, and a run of them stops."""

import copy
import itertools
from contextlib import nullcontext

import pytest
import torch

from tests.helpers import REPAINT, column, load_checkpoint, train_here
from tests.tiny import changed, loop_args, one_update, overflow_once, parts, sgd, snapshot, tiny_batch, tiny_task
from timm_repaint import task as task_module
from timm_repaint.engine.repaint_loop import update_generator, update_task_and_discriminator
from timm_repaint.gan_optimizer import NonFiniteLossError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_after_an_overflow_in_the_generator_no_nan_stays_in_its_running_statistics():
    task = tiny_task()
    before = {name: snapshot(part) for name, part in parts(task).items()}
    overflow_once(task)
    losses = update_generator(task, *tiny_batch(), one_update(), loop_args(), nullcontext)
    assert losses['loss'] != losses['loss'] and task.optimizers['generator'].skipped == 1
    assert all(changed(part, before[name]) == set() for name, part in parts(task).items())


def test_after_an_overflow_in_the_generator_the_task_learns_from_the_originals_and_the_discriminator_skips():
    task, (batch, target) = tiny_task(prob=0.5), tiny_batch()
    twin = copy.deepcopy(task.task)
    twin(batch[:, :3], target)['loss'].backward()
    torch.optim.SGD(twin.parameters(), lr=0.05).step()
    overflow_once(task)
    update_task_and_discriminator(task, batch, target, one_update(), loop_args(), nullcontext, sgd(task), None)
    assert task.optimizers['discriminator'].skipped == 1
    for part in (task.task, task.repainter, task.discriminator):
        assert all(value.isfinite().all() for value in part.state_dict().values())
    for (name, ours), theirs in zip(task.task.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_only_the_repaint_that_is_not_finite_is_replaced():
    repaint_pm1, image_pm1 = torch.full((3, 3, 2, 2), 0.5), torch.full((3, 3, 2, 2), -0.5)
    repaint_pm1[1, 2, 0, 1] = float('nan')
    repaint_pm1[2, 0, 0, 0] = float('inf')
    shown_pm1 = task_module.finite_or_original(repaint_pm1, image_pm1)
    assert shown_pm1.flatten(1).unique(dim=1).tolist() == [[0.5], [-0.5], [-0.5]]


def spoil(monkeypatch, name, calls):
    """Let a loss of the repaint phase be nan in its calls number `calls`, counted from 0; returns the counter."""
    honest, counter = getattr(task_module, name), itertools.count()

    def sometimes_nan(*args):
        return honest(*args) * (float('nan') if next(counter) in calls else 1)

    monkeypatch.setattr(task_module, name, sometimes_nan)
    return counter


def test_a_run_skips_bad_updates_counts_them_and_ends_well(tmp_path, monkeypatch):
    # 8 batches of 8 in each of 2 epochs: 5 updates of E+G at 2:1, of them 2 bad; 16 of D+T, of them 1 bad for D.
    spoil(monkeypatch, 'generator_loss', {1, 3})
    spoil(monkeypatch, 'discriminator_loss', {10})
    run = train_here(
        tmp_path,
        *REPAINT,
        '--train-num-samples',
        64,
        '--epochs',
        2,
        '--repaint-epochs',
        2,
        '--repaint-max-nonfinite',
        2,
    )
    assert column(run, 'train_skipped_updates') == [1, 3]
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    assert checkpoint['epoch'] == 1
    repaint = checkpoint['task_state']['repaint']
    for state in (repaint['repainter']['state_dict'], repaint['discriminator'], checkpoint['state_dict']):
        assert all(value.isfinite().all() for value in state.values())
    assert repaint['optimizers']['generator']['adam']['state'][0]['step'] == 3
    assert repaint['optimizers']['discriminator']['adam']['state'][0]['step'] == 15


def test_a_run_of_bad_updates_stops_and_the_last_epochs_checkpoint_resumes(tmp_path, monkeypatch):
    # Epoch 0 has 2 updates of E+G, the later ones are all bad: 3 in epoch 1.
    with monkeypatch.context() as broken:
        spoil(broken, 'generator_loss', set(range(2, 100)))
        options = (*REPAINT, '--train-num-samples', 64, '--epochs', 3, '--repaint-epochs', 3)
        with pytest.raises(NonFiniteLossError, match='the generator loss was not finite in 3 updates in a row'):
            train_here(tmp_path, *options, '--repaint-max-nonfinite', 3)
    checkpoint = load_checkpoint(tmp_path / 'run' / 'last.pth.tar')
    assert checkpoint['epoch'] == 0
    assert all(
        value.isfinite().all() for value in checkpoint['task_state']['repaint']['repainter']['state_dict'].values()
    )
    run = train_here(tmp_path, *options, '--resume', 'auto')
    assert column(run, 'epoch') == [0, 1, 2] and column(run, 'train_skipped_updates') == [0, 0, 0]
