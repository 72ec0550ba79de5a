"""Losses that are not finite: the update is skipped, nothing is spoilt, and a run of them stops."""

import copy
import itertools
import logging

import pytest
import torch
from torch import nn

from tests.helpers import REPAINT, column, load_checkpoint, load_repaint, train_here
from tests.tiny import (
    adam_steps,
    changed,
    learn,
    loop_args,
    overflow_once,
    paints_next,
    parts,
    snapshot,
    tiny_batch,
    tiny_classifier,
    tiny_repaint,
    tiny_task,
)
from timm_repaint import losses
from timm_repaint.batches import finite_or_original
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.errors import UsageError

pytestmark = pytest.mark.usefixtures('seeded')

CPU = torch.device('cpu')


def all_finite(*states):
    return all(value.isfinite().all() for state in states for value in state.values())


@pytest.mark.parametrize('separate', [False, True])
def test_after_an_overflow_in_the_generator_no_nan_stays_in_its_running_statistics(separate):
    repaint = paints_next(tiny_repaint(separate_batches=separate))
    before = {name: snapshot(part) for name, part in parts(repaint).items()}
    overflow_once(repaint)
    assert repaint.task_learns != separate
    metrics = learn(repaint, tiny_classifier(), *tiny_batch())
    assert metrics.g_gan != metrics.g_gan
    assert repaint.skipped == {'generator': 1, 'discriminator': int(not separate), 'task': 0}
    moved = {name: changed(part, before[name]) for name, part in parts(repaint).items()}
    assert moved['E'] == set() and all(name.endswith('num_batches_tracked') for name in moved['G'])
    still = {name for name, _ in repaint.discriminator.named_parameters()} if not separate else set(before['D'])
    assert not still & moved['D'] and all_finite(repaint.state_dict())
    # The moments have nothing of it: the next update is the first one's.
    assert not any(tensor.any() for optimizer in repaint.optimizers.values() for tensor in optimizer.tensors)


def test_running_statistics_that_are_finite_go_on_and_those_that_are_not_are_put_back():
    repaint = paints_next(tiny_repaint())
    generator = repaint.repainter.generator
    first, *_, last = (name for name, _ in generator.named_modules() if name.endswith('spade_out.norm'))
    # The last norm's input overflows in one channel; those ahead of it are as they should be.
    ahead = generator.get_submodule(last.replace('spade_out.norm', 'conv_in'))
    ahead.register_forward_hook(lambda module, inputs, output: spoil_channel(output))
    before = snapshot(generator)
    learn(repaint, tiny_classifier(), *tiny_batch())
    moved = {name: generator.state_dict()[name] != before[name] for name in changed(generator, before)}
    assert moved[f'{first}.running_mean'].all()
    assert moved[f'{last}.running_mean'].tolist() == [False] + [True] * (len(moved[f'{last}.running_mean']) - 1)
    assert all_finite(generator.state_dict()) and repaint.skipped['generator'] == 1


def spoil_channel(x):
    """[B, C, H, W] with an infinity in the first channel."""
    x = x.clone()
    x[0, 0, 0, 0] = float('inf')
    return x


def test_after_an_overflow_in_the_generator_the_task_learns_from_the_originals_and_the_discriminator_skips():
    repaint, task, (batch, target) = tiny_repaint(prob=0.5), tiny_task(), tiny_batch()
    twin = copy.deepcopy(task)
    twin(batch[:, :3], target)['loss'].backward()
    torch.optim.SGD(twin.parameters(), lr=0.05).step()
    overflow_once(repaint)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    train_one_epoch(0, task, [(batch, target)], optimizer, loop_args(), task, CPU, repaint=repaint)
    assert repaint.skipped == {'generator': 0, 'discriminator': 1, 'task': 0}
    assert all_finite(task.state_dict(), repaint.state_dict())
    for (name, ours), theirs in zip(task.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_only_the_repaint_that_is_not_finite_is_replaced():
    repaint_pm1, image_pm1 = torch.full((3, 3, 2, 2), 0.5), torch.full((3, 3, 2, 2), -0.5)
    repaint_pm1[1, 2, 0, 1] = float('nan')
    repaint_pm1[2, 0, 0, 0] = float('inf')
    shown_pm1 = finite_or_original(repaint_pm1, image_pm1)
    assert shown_pm1.flatten(1).unique(dim=1).tolist() == [[0.5], [-0.5], [-0.5]]


# The task's gradient --------------------------------------------------------------------------------------------------


def learn_from_a_bad_task(repaint, model, factor=float('nan')):
    images, target = repaint(*tiny_batch())
    (nn.functional.cross_entropy(model(images), target) * factor).backward()
    return repaint.step()


def test_a_gradient_of_the_task_that_is_not_finite_skips_the_generators_update_and_is_the_tasks():
    repaint = paints_next(tiny_repaint())
    before = snapshot(repaint.repainter)
    metrics = learn_from_a_bad_task(repaint, tiny_classifier())
    assert repaint.skipped == {'generator': 0, 'discriminator': 0, 'task': 1}
    assert not {name for name, _ in repaint.repainter.named_parameters()} & changed(repaint.repainter, before)
    assert adam_steps(repaint) == (1, 0) and metrics.g_gan.isfinite()
    learn(paints_next(repaint), tiny_classifier(), *tiny_batch())
    assert repaint.skipped['task'] == 1 and adam_steps(repaint) == (2, 1)


def test_a_task_that_is_never_finite_is_named_as_the_culprit():
    repaint, model = tiny_repaint(schedule=(1, 1), max_nonfinite=2), tiny_classifier()
    with pytest.raises(UsageError, match="the task's gradient was not finite in 2 updates in a row") as stopped:
        for _ in range(6):  # E and G's are numbers 2, 4 and 6
            learn_from_a_bad_task(repaint, model)
    assert "it is not the generator's fault" in str(stopped.value) and repaint.updates == 6


def test_with_accumulation_one_bad_batch_of_the_task_skips_the_update_of_all_of_them():
    repaint, model = paints_next(tiny_repaint()), tiny_classifier()
    images, target = repaint(*tiny_batch())
    (nn.functional.cross_entropy(model(images), target) * float('nan')).backward()
    repaint.step(update=False)
    learn(repaint, model, *tiny_batch(seed=1))
    assert repaint.skipped == {'generator': 0, 'discriminator': 0, 'task': 1} and adam_steps(repaint) == (1, 0)


# Runs -----------------------------------------------------------------------------------------------------------------


def spoil(monkeypatch, name, calls):
    """Let a loss of the repaint phase be nan in its calls number `calls`, counted from 0; returns the counter."""
    honest, counter = getattr(losses, name), itertools.count()

    def sometimes_nan(*args):
        return honest(*args) * (float('nan') if next(counter) in calls else 1)

    monkeypatch.setattr(losses, name, sometimes_nan)
    return counter


def test_a_run_skips_bad_updates_counts_them_and_ends_well(tmp_path, monkeypatch, caplog):
    # 8 batches of 8 in each of 2 epochs: 5 updates of E+G at 2:1, of them 2 bad; 16 of D and T, of them 1 bad for D.
    spoil(monkeypatch, 'generator_loss', {1, 3})
    spoil(monkeypatch, 'discriminator_loss', {10})
    options = ('--train-num-samples', 64, '--epochs', 2, '--repaint-epochs', 2, '--repaint-max-nonfinite', 2)
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        run = train_here(tmp_path, *REPAINT, *options)
    assert column(run, 'train_skipped_updates') == [1, 3]
    # Each bad update is told once, an update of the same network later.
    told = [record.message for record in caplog.records if 'not finite' in record.message]
    assert told == [
        'The generator loss is not finite: update skipped (1 so far).',
        'The discriminator loss is not finite: update skipped (1 so far).',
        'The generator loss is not finite: update skipped (2 so far).',
    ]
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    assert checkpoint['epoch'] == 1
    repaint = load_repaint(run / 'last.pth.tar')
    assert all_finite(repaint.state_dict(), checkpoint['state_dict'])
    assert adam_steps(repaint) == (15, 3) and repaint.updates == 16
    assert repaint.skipped == {'generator': 2, 'discriminator': 1, 'task': 0}


def test_a_run_of_bad_updates_stops_and_the_last_epochs_checkpoint_resumes(tmp_path, monkeypatch):
    # Epoch 0 has 2 updates of E+G, the later ones are all bad: 3 in epoch 1, of which the first of epoch 2 hears.
    with monkeypatch.context() as broken:
        counter = spoil(broken, 'generator_loss', set(range(2, 100)))
        options = (*REPAINT, '--train-num-samples', 64, '--epochs', 3, '--repaint-epochs', 3)
        with pytest.raises(UsageError, match='the generator loss was not finite in 3 updates in a row'):
            train_here(tmp_path, *options, '--repaint-max-nonfinite', 3)
        assert next(counter) == 6
    last = tmp_path / 'run' / 'last.pth.tar'
    assert load_checkpoint(last)['epoch'] == 1
    stopped = load_repaint(last)
    assert all_finite(stopped.state_dict()) and stopped.skipped['generator'] == 3
    run = train_here(tmp_path, *options, '--resume', 'auto')
    assert column(run, 'epoch') == [0, 1, 2] and column(run, 'train_skipped_updates') == [0, 3, 3]
    assert adam_steps(load_repaint(last)) == (24, 5)


def test_after_a_resume_what_was_skipped_before_is_not_told_again(caplog):
    repaint, model = tiny_repaint(), tiny_classifier()
    overflow_once(repaint)
    learn(repaint, model, *tiny_batch())
    resumed = tiny_repaint()
    resumed.load_state_dict(repaint.state_dict())
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        for seed in range(3):
            learn(resumed, model, *tiny_batch(seed=seed))
    assert caplog.messages == [] and resumed.skipped['discriminator'] == 1


def test_after_a_resume_a_row_of_skipped_updates_goes_on():
    repaint = tiny_repaint(max_nonfinite=3)
    for _ in range(2):
        overflow_once(repaint)
        learn(repaint, tiny_classifier(), *tiny_batch())
    resumed = tiny_repaint(max_nonfinite=3)
    resumed.load_state_dict(repaint.state_dict())
    overflow_once(resumed)
    learn(resumed, tiny_classifier(), *tiny_batch())
    with pytest.raises(UsageError, match='in 3 updates in a row'):
        learn(resumed, tiny_classifier(), *tiny_batch())
