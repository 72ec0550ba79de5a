import argparse
import copy
import math
import traceback
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from timm.utils import ModelEmaV3, NativeScaler
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny import changed, loop_args, one_update, overflow_once, parts, sgd, snapshot, tiny_batch, tiny_task
from timm_repaint import task as task_module
from timm_repaint.engine.repaint_loop import (
    RepaintMeters,
    is_generator_update,
    repaint_one_epoch,
    update_all,
    update_generator,
    update_task_and_discriminator,
)
from timm_repaint.task import passed_on

CPU = torch.device('cpu')
PACKAGE = Path(task_module.__file__).parent


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pattern(schedule, length):
    return ''.join('G' if is_generator_update(update, schedule) else 'T' for update in range(length))


@pytest.mark.parametrize(
    ('schedule', 'wanted'),
    [((2, 1), 'TTGTTGTTGT'), ((1, 1), 'TGTGTGTGTG'), ((3, 2), 'TTTGGTTTGG'), ((1, 2), 'TGGTGGTGGT')],
)
def test_updates_follow_the_schedule(schedule, wanted):
    assert pattern(schedule, 10) == wanted


def test_a_task_update_leaves_encoder_and_generator_bit_by_bit_and_moves_task_and_discriminator():
    task = tiny_task(gan_loss='original')  # hinge: inside its margins the last bias of D has no gradient
    before = {name: snapshot(part) for name, part in parts(task).items()}
    update_task_and_discriminator(task, *tiny_batch(), one_update(), loop_args(), nullcontext, sgd(task), None)
    moved = {name: changed(part, before[name]) for name, part in parts(task).items()}
    assert moved['E'] == moved['G'] == set()
    assert {name for name, _ in task.discriminator.named_parameters()} <= moved['D']
    assert {name for name, _ in task.task.named_parameters()} <= moved['T']
    assert any(name.endswith('running_mean') for name in moved['T'])
    assert any('_u' in name for name in moved['D'])
    assert all(p.grad is None for p in task.repainter.parameters())


def test_a_generator_update_leaves_task_and_discriminator_bit_by_bit_and_moves_encoder_and_generator():
    task = tiny_task()
    before = {name: snapshot(part) for name, part in parts(task).items()}
    update_generator(task, *tiny_batch(), one_update(), loop_args(), nullcontext)
    moved = {name: changed(part, before[name]) for name, part in parts(task).items()}
    assert moved['T'] == moved['D'] == set()
    assert {name for name, _ in task.repainter.encoder.named_parameters()} <= moved['E']
    assert any(name.endswith('running_var') for name in moved['G'])
    still = {name for name, _ in task.repainter.generator.named_parameters()} - moved['G']
    # A convolution's bias straight ahead of a batch norm has no gradient.
    assert all(name.endswith('bias') for name in still)
    assert all(p.grad is None and p.requires_grad for p in (*task.task.parameters(), *task.discriminator.parameters()))


def test_two_half_batches_of_a_generator_update_step_once():
    task = tiny_task()
    before = snapshot(task.repainter)
    update_generator(task, *tiny_batch(seed=1), one_update(2, need_update=False), loop_args(), nullcontext)
    assert not {name for name, _ in task.repainter.named_parameters()} & changed(task.repainter, before)
    update_generator(task, *tiny_batch(seed=2), one_update(2), loop_args(), nullcontext)
    assert {name for name, _ in task.repainter.encoder.named_parameters()} <= {
        name.removeprefix('encoder.') for name in changed(task.repainter, before)
    }
    assert task.optimizers['generator'].adam.state_dict()['state'][0]['step'] == 1


# A batch from which all learn -----------------------------------------------------------------------------------------


def update_all_once(task, loss_scaler=None, accum_steps=1):
    torch.manual_seed(5)
    micro = one_update(accum_steps)
    return update_all(task, *tiny_batch(8), micro, loop_args(), nullcontext, sgd(task), loss_scaler)


def test_all_networks_learn_from_one_batch_each_by_one_step():
    task = tiny_task(gan_loss='original', prob=0.5)
    before = {name: snapshot(part) for name, part in parts(task).items()}
    losses = update_all_once(task)
    moved = {name: changed(part, before[name]) for name, part in parts(task).items()}
    for name in ('T', 'E', 'D'):
        assert {key for key, _ in parts(task)[name].named_parameters()} <= moved[name], name
    still = {name for name, _ in task.repainter.generator.named_parameters()} - moved['G']
    assert all(name.endswith('bias') for name in still)
    assert adam_steps(task) == (1, 1)
    assert losses['task'] == losses['loss'].detach()
    assert all(p.requires_grad for part in parts(task).values() for p in part.parameters())


def test_task_and_discriminator_learn_from_it_as_if_the_generator_did_not():
    task = tiny_task(prob=0.5)
    twin, (batch, target) = copy.deepcopy(task), tiny_batch(8)
    update_all_once(task)
    torch.manual_seed(5)
    update_task_and_discriminator(twin, batch, target, one_update(), loop_args(), nullcontext, sgd(twin), None)
    assert changed(task.task, snapshot(twin.task)) == changed(task.discriminator, snapshot(twin.discriminator)) == set()
    assert changed(task.repainter, snapshot(twin.repainter))


def mean_of_neighbours(image_norm, target):
    """Every image half itself and half the next, as MixUp would."""
    return 0.5 * (image_norm + image_norm.roll(1, 0)), target


@pytest.mark.parametrize('accum_steps', [1, 3])
@pytest.mark.parametrize('after_repaint', [None, mean_of_neighbours])
@pytest.mark.parametrize('settings', [{}, {'mix': 'both'}, {'split_bn': True}], ids=str)
def test_encoder_and_generator_get_the_gradient_of_the_tasks_loss_for_a_mean_over_repaints(
    settings, after_repaint, accum_steps
):
    task = tiny_task(after_repaint=after_repaint, prob=0.5, **settings)
    weights, (batch, target) = list(task.repainter.encoder.parameters()), tiny_batch(8)
    painted = task.paint(batch, learning=True)
    twin = copy.deepcopy(task.task)
    losses = task(batch, target, painted)
    (losses['loss'] / accum_steps).backward()
    images, repaint_pm1 = len(losses['images']), painted.repaint_pm1
    loss = passed_on(losses['loss'], losses['shown'], repaint_pm1, images, 1 / accum_steps)
    ours = torch.autograd.grad(loss, weights, retain_graph=True)
    task.task = twin
    through = task._task_losses(painted.image_norm, task.to_norm(repaint_pm1, torch.float32), target)['loss']
    wanted = torch.autograd.grad(through * (images / 4), weights)  # 4 of the 8 are repainted
    assert images == (12 if settings == {'mix': 'both'} else 8)
    for one, other in zip(ours, wanted, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm()
    torch.testing.assert_close(loss, through)


def test_the_scaler_of_the_tasks_loss_does_not_change_what_the_generator_gets():
    task = tiny_task(prob=0.5)
    twin = copy.deepcopy(task)
    update_all_once(task, accum_steps=2)
    update_all_once(twin, NativeScaler(device='cpu'), accum_steps=2)
    ours, scaled = (each.optimizers['generator'].adam.state_dict()['state'] for each in (task, twin))
    for one, other in zip(ours.values(), scaled.values(), strict=True):  # of squared gradients
        assert (one['exp_avg_sq'] - other['exp_avg_sq']).norm() <= 1e-3 * one['exp_avg_sq'].norm() + 1e-12


def test_without_weight_of_the_task_its_gradient_at_the_repaints_is_not_worked_out():
    task = tiny_task(prob=0.5, task_weight=0.0)
    losses = update_all_once(task)
    assert losses['shown'].grad is None and losses['task'] == 0
    assert adam_steps(task) == (1, 1)


def test_after_an_overflow_there_the_task_learns_and_the_generator_stays_as_it_is():
    task = tiny_task(prob=0.5)
    before = {name: snapshot(part) for name, part in parts(task).items()}
    overflow_once(task)
    update_all_once(task)
    assert (task.optimizers['generator'].skipped, task.optimizers['discriminator'].skipped) == (1, 1)
    for name in ('E', 'G'):
        assert changed(parts(task)[name], before[name]) == set()
    assert changed(task.task, before['T'])
    assert all(value.isfinite().all() for value in task.task.state_dict().values())


@pytest.mark.parametrize('apart', [False, True])
def test_a_batch_is_repainted_once_and_the_task_sees_it_once(apart):
    task, seen = tiny_task(prob=0.5), {'T': 0, 'G': 0}
    for name, part in (('T', task.task.trainable_module), ('G', task.repainter.generator)):
        part.register_forward_hook(lambda *_, name=name: seen.update({name: seen[name] + 1}))
    run_epochs(task, 3, [0], repaint_separate_batches=apart)
    assert seen == {'T': 3, 'G': 3}


class ReadsOfTheHost(TorchDispatchMode):
    """Notes the files from which tensors' values are read, for which the host has to wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.files = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            paths = [Path(frame.filename) for frame in traceback.extract_stack()]
            self.files.add([path.name for path in paths if path.is_relative_to(PACKAGE)][-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('apart', [False, True])
def test_the_host_reads_nothing_but_the_guards_flags(apart):
    task = tiny_task(prob=0.5)
    with ReadsOfTheHost() as reads:
        run_epochs(task, 3, [0], repaint_separate_batches=apart, log_interval=1000)
    assert reads.files == {'gan_optimizer.py'}  # off the CPU those are read an update late


class CountingScheduler:
    """Notes what the loop says of the number of updates."""

    def __init__(self):
        self.seen = []

    def step_update(self, num_updates):
        self.seen.append(num_updates)


def run_epochs(task, num_batches, epochs, **options):
    scheduler, results = CountingScheduler(), []
    loader = [tiny_batch(seed=seed) for seed in range(num_batches)]
    optimizer = sgd(task)
    for epoch in epochs:
        results.append(
            repaint_one_epoch(epoch, loader, optimizer, loop_args(**options), task, CPU, lr_scheduler=scheduler)
        )
    return scheduler.seen, results


def adam_steps(task):
    return tuple(
        int(task.optimizers[name].adam.state_dict()['state'][0]['step']) if task.optimizers[name].adam.state else 0
        for name in ('discriminator', 'generator')
    )


@pytest.mark.parametrize(('epochs', 'wanted'), [([0], (3, 1)), ([1], (3, 1)), ([2], (2, 2)), ([0, 1, 2], (8, 4))])
def test_the_pattern_goes_on_across_epochs(epochs, wanted):
    # Four batches an epoch at 2:1: TTGT TGTT GTTG.
    task = tiny_task()
    run_epochs(task, 4, epochs)
    assert adam_steps(task) == wanted


def test_every_batch_trains_the_task_where_batches_are_not_kept_apart():
    task = tiny_task()
    _, results = run_epochs(task, 4, [0, 1], repaint_separate_batches=False)
    assert adam_steps(task) == (8, 2)
    assert all(math.isfinite(value) for result in results for value in result.values())


def test_the_pattern_counts_updates_and_not_batches():
    task = tiny_task()
    seen, _ = run_epochs(task, 5, [0], grad_accum_steps=2)  # updates of 2, 2 and 1 batches: T, T, G
    assert adam_steps(task) == (2, 1)
    assert seen == [1, 2, 3]


def test_the_learning_rate_schedule_counts_generator_updates_too():
    seen, _ = run_epochs(tiny_task(), 4, [0, 1])
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_epoch_reports_all_parts_and_hits_in_percent():
    _, (result,) = run_epochs(tiny_task(rec_weight=1.0), 6, [0])
    names = {'loss', 'd_loss', 'g_gan', 'g_feat', 'g_kl', 'g_segment_kl', 'g_rec', 'g_task'}
    assert set(result) == names | {'hits_repaint', 'hits_original'}
    assert all(value == value for value in result.values())
    assert 0 <= result['hits_repaint'] <= 100 and result['g_rec'] > 0


def test_a_frozen_repainter_has_no_generator_updates_and_its_meters_are_nan():
    task = tiny_task()
    task.discriminator, task.optimizers = None, {}
    before = snapshot(task.repainter)
    _, (result,) = run_epochs(task, 4, [0])
    assert changed(task.repainter, before) == set()
    assert result['loss'] > 0 and all(result[name] != result[name] for name in ('d_loss', 'g_gan', 'g_task'))


def test_the_weight_average_moves_in_task_updates_only():
    task = tiny_task()
    ema = task.setup_ema(decay=0.5)
    assert isinstance(ema, ModelEmaV3)
    run_epochs(task, 2, [0])
    before = snapshot(ema)
    assert changed(ema, before) == set()
    run_epochs(task, 1, [2])  # update number 2: E+G's
    assert changed(ema, before) == set()
    run_epochs(task, 1, [3])
    assert changed(ema, before)


def test_meters_weigh_hits_by_images():
    meters = RepaintMeters()
    meters.add_task(
        {'loss': torch.tensor(1.0), 'hits_repaint': (torch.tensor(1.0), 2), 'hits_original': (torch.tensor(0.0), 0)}, 2
    )
    meters.add_task(
        {'loss': torch.tensor(4.0), 'hits_repaint': (torch.tensor(6.0), 6), 'hits_original': (torch.tensor(3.0), 4)}, 4
    )
    means = meters.means(argparse.Namespace(distributed=False), CPU)
    assert means['loss'] == pytest.approx(3.0)  # (1*2 + 4*4) / 6
    assert means['hits_repaint'] == pytest.approx(87.5)  # 7 of 8
    assert means['hits_original'] == pytest.approx(75.0)  # 3 of 4: a batch without originals does not count
    assert means['d_loss'] != means['d_loss']
