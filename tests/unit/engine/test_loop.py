"""The epoch loop behind a repaint: who learns in which update, what is counted, and what the host waits for."""

import copy
import math
from pathlib import Path

import pytest
import torch
from timm.utils import ModelEmaV3, NativeScaler

import timm_repaint
from tests.tiny import (
    adam_steps,
    changed,
    loop_args,
    overflow_once,
    paints_next,
    parts,
    snapshot,
    tiny_batch,
    tiny_repaint,
    tiny_task,
)
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.engine.meters import TrainMeters
from timm_repaint.judging import StepMetrics

pytestmark = pytest.mark.usefixtures('seeded')

CPU = torch.device('cpu')
PACKAGE = Path(timm_repaint.__file__).parent
LOSSES = ('d_loss', 'g_gan', 'g_feat', 'g_kl', 'g_segment_kl')


class Watched:
    """Batches that call a function with the number of the batch ahead, the last one's done included."""

    def __init__(self, batches, look):
        self.batches, self.look = batches, look

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for number, batch in enumerate(self.batches):
            self.look(number)
            yield batch
        self.look(len(self))


class CountingScheduler:
    """Notes what the loop says of the number of updates."""

    def __init__(self):
        self.seen = []

    def step_update(self, num_updates):
        self.seen.append(num_updates)


def run_epochs(task, repaint, batches=1, epochs=(0,), size=8, given=None, look=lambda number: None, **options):
    """Train on a number of batches an epoch; the numbers that the scheduler saw, and the epochs' means.

    Args:
        size: Images of a batch.
        given: Arguments of the loop beside the usual ones.
        look: Is called ahead of each batch with its number, and at an epoch's end.
        options: As on the command line.
    """
    scheduler, args = CountingScheduler(), loop_args(**options)
    loader = Watched([tiny_batch(size, seed=seed) for seed in range(batches)], look)
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.05)
    given = {'lr_scheduler': scheduler, 'repaint': repaint, **(given or {})}
    results = [train_one_epoch(epoch, task, loader, optimizer, args, task, CPU, **given) for epoch in epochs]
    return scheduler.seen, results


def everybody(task, repaint):
    return {'T': task, **parts(repaint)}


def before_of(task, repaint):
    return {name: snapshot(part) for name, part in everybody(task, repaint).items()}


def moved_since(before, task, repaint):
    return {name: changed(part, before[name]) for name, part in everybody(task, repaint).items()}


def weights(module):
    return {name for name, _ in module.named_parameters()}


def assert_all_of_the_generator_moved(repaint, moved):
    assert weights(repaint.repainter.encoder) <= moved['E']
    still = weights(repaint.repainter.generator) - moved['G']
    # A convolution's bias straight ahead of a batch norm has no gradient.
    assert all(name.endswith('bias') for name in still)
    assert any(name.endswith('running_var') for name in moved['G'])


def assert_at_rest(task, repaint):
    """Between batches nobody has gradients, and of the weights only the task's ask for them."""
    assert all(p.requires_grad and (p.grad is None or not p.grad.any()) for p in task.parameters())
    assert all(not p.requires_grad and p.grad is None for p in repaint.parameters())


# Who learns in which update -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('schedule', 'wanted'),
    [((2, 1), 'TTGTTGTTGT'), ((1, 1), 'TGTGTGTGTG'), ((3, 2), 'TTTGGTTTGG'), ((1, 2), 'TGGTGGTGGT')],
)
def test_updates_follow_the_schedule(schedule, wanted):
    task, repaint, pattern = tiny_task(), tiny_repaint(schedule=schedule), ''
    for _ in wanted:
        steps = adam_steps(repaint)[1]
        run_epochs(task, repaint)
        pattern += 'T' if adam_steps(repaint)[1] == steps else 'G'
    assert pattern == wanted and adam_steps(repaint) == (10, wanted.count('G'))


@pytest.mark.parametrize('separate', [False, True])
def test_a_task_update_leaves_encoder_and_generator_bit_by_bit_and_moves_task_and_discriminator(separate):
    # hinge: inside its margins the last bias of D has no gradient
    task, repaint = tiny_task(), tiny_repaint(gan_loss='original', separate_batches=separate)
    before = before_of(task, repaint)
    run_epochs(task, repaint)
    moved = moved_since(before, task, repaint)
    assert moved['E'] == moved['G'] == set()
    assert weights(repaint.discriminator) <= moved['D'] and any('_u' in name for name in moved['D'])
    assert weights(task) <= moved['T'] and any(name.endswith('running_mean') for name in moved['T'])
    assert_at_rest(task, repaint)


@pytest.mark.parametrize('task_weight', [1.0, 0.0])
def test_a_separate_generator_update_leaves_task_and_discriminator_bit_by_bit_and_moves_encoder_and_generator(
    task_weight,
):
    task, repaint = tiny_task(), paints_next(tiny_repaint(separate_batches=True, task_weight=task_weight))
    before = before_of(task, repaint)
    run_epochs(task, repaint)
    moved = moved_since(before, task, repaint)
    assert moved['T'] == moved['D'] == set()
    assert_all_of_the_generator_moved(repaint, moved)
    assert adam_steps(repaint) == (0, 1)
    assert_at_rest(task, repaint)


def test_all_networks_learn_from_one_batch_each_by_one_step():
    task, repaint = tiny_task(), paints_next(tiny_repaint(gan_loss='original'))
    before = before_of(task, repaint)
    run_epochs(task, repaint)
    moved = moved_since(before, task, repaint)
    assert weights(task) <= moved['T'] and weights(repaint.discriminator) <= moved['D']
    assert_all_of_the_generator_moved(repaint, moved)
    assert adam_steps(repaint) == (1, 1)
    assert_at_rest(task, repaint)


def test_task_and_discriminator_learn_from_it_as_if_the_generator_did_not():
    pairs = [(tiny_task(), tiny_repaint())]
    pairs.append((copy.deepcopy(pairs[0][0]), paints_next(copy.deepcopy(pairs[0][1]))))
    for task, repaint in pairs:
        torch.manual_seed(5)
        run_epochs(task, repaint)
    (task, repaint), (other_task, other) = pairs
    assert changed(task, snapshot(other_task)) == changed(repaint.discriminator, snapshot(other.discriminator)) == set()
    assert changed(repaint.repainter, snapshot(other.repainter))


def test_encoder_and_generator_are_judged_by_the_discriminator_as_it_was_before_its_step():
    task, repaint = tiny_task(), paints_next(tiny_repaint())
    twin_task, twin = copy.deepcopy(task), copy.deepcopy(repaint)
    for group in twin.optimizers['discriminator'].adam.param_groups:
        group['lr'] = 0.0  # D stays, but for its spectral norms' iteration
    for each, its in ((task, repaint), (twin_task, twin)):
        torch.manual_seed(5)
        run_epochs(each, its)
    assert changed(repaint.discriminator, snapshot(twin.discriminator))
    assert changed(repaint.repainter, snapshot(twin.repainter)) == set()


@pytest.mark.parametrize('separate', [False, True])
def test_two_half_batches_of_a_generator_update_step_once(separate):
    task, repaint = tiny_task(), paints_next(tiny_repaint(separate_batches=separate))
    before, seen = before_of(task, repaint), []

    def look(number):
        moved = moved_since(before, task, repaint)
        moved = {name: moved[name] & weights(part) for name, part in everybody(task, repaint).items()}
        seen.append((moved, adam_steps(repaint), repaint.updates))

    run_epochs(task, repaint, 2, look=look, grad_accum_steps=2)
    nobody = ({'T': set(), 'E': set(), 'G': set(), 'D': set()}, (0, 0), 2)
    assert seen[:2] == [nobody, nobody]
    moved, steps, updates = seen[2]
    assert (steps, updates) == ((0, 1) if separate else (1, 1), 3)
    assert weights(repaint.repainter.encoder) == moved['E'] and bool(moved['T']) == bool(moved['D']) == (not separate)


def test_the_scaler_of_the_tasks_loss_does_not_change_what_the_generator_gets():
    pairs = [(tiny_task(), paints_next(tiny_repaint()))]
    pairs.append(copy.deepcopy(pairs[0]))
    for (task, repaint), scaler in zip(pairs, (None, NativeScaler(device='cpu')), strict=True):
        torch.manual_seed(5)
        run_epochs(task, repaint, 2, given={'loss_scaler': scaler}, grad_accum_steps=2)
    ours, scaled = (each.optimizers['generator'].adam.state_dict()['state'] for _, each in pairs)
    assert all(state['step'] == 1 for state in (*ours.values(), *scaled.values()))
    for one, other in zip(ours.values(), scaled.values(), strict=True):  # of squared gradients
        assert (one['exp_avg_sq'] - other['exp_avg_sq']).norm() <= 1e-3 * one['exp_avg_sq'].norm() + 1e-12


@pytest.mark.parametrize('separate', [False, True])
def test_a_batch_is_repainted_once_and_the_task_sees_it_once(separate):
    task, repaint = tiny_task(), tiny_repaint(separate_batches=separate)
    seen = {'T': 0, 'G': 0, 'D': 0}
    networks = {'T': task.trainable_module, 'G': repaint.repainter.generator, 'D': repaint.discriminator}
    for name, part in networks.items():
        part.register_forward_hook(lambda *_, name=name: seen.update({name: seen[name] + 1}))
    run_epochs(task, repaint, 3)
    assert seen == {'T': 3, 'G': 3, 'D': 3}


def test_the_weight_average_moves_in_task_updates_only():
    task, repaint = tiny_task(), tiny_repaint(separate_batches=True)
    ema = task.setup_ema(decay=0.5)
    assert isinstance(ema, ModelEmaV3)
    moved, before = [], snapshot(ema)

    def look(number):
        moved.append(changed(ema, before) != set())
        before.update(snapshot(ema))

    run_epochs(task, repaint, 6, look=look)
    assert moved[1:] == [True, True, False, True, True, False]


# A generator that overflows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('paints', [False, True])
def test_after_an_overflow_there_the_task_learns_and_the_generator_stays_as_it_is(paints):
    task, repaint = tiny_task(), tiny_repaint()
    if paints:
        paints_next(repaint)
    before = before_of(task, repaint)
    overflow_once(repaint)
    run_epochs(task, repaint)
    moved = moved_since(before, task, repaint)
    assert repaint.skipped == {'generator': int(paints), 'discriminator': 1, 'task': 0}
    assert moved['E'] == weights(repaint.discriminator) & moved['D'] == set()
    assert all(name.endswith('num_batches_tracked') for name in moved['G'])  # a count that nothing is made of
    assert weights(task) <= moved['T']
    assert all(value.isfinite().all() for part in (task, repaint) for value in part.state_dict().values())


# What the host waits for ----------------------------------------------------------------------------------------------


# The schedule over epochs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('separate', 'wanted'), [(True, [(3, 1), (6, 2), (8, 4)]), (False, [(4, 1), (8, 2), (12, 4)])])
def test_the_pattern_goes_on_across_epochs(separate, wanted):
    # Four batches an epoch at 2:1: TTGT TGTT GTTG.
    task, repaint, steps = tiny_task(), tiny_repaint(separate_batches=separate), []
    for epoch in range(3):
        _, (result,) = run_epochs(task, repaint, 4, [epoch])
        steps.append(adam_steps(repaint))
        assert all(math.isfinite(value) for value in result.values())
    assert steps == wanted


def test_the_pattern_counts_updates_and_not_batches():
    task, repaint = tiny_task(), tiny_repaint(separate_batches=True)
    seen, _ = run_epochs(task, repaint, 5, grad_accum_steps=2)  # updates of 2, 2 and 1 batches: T, T, G
    assert adam_steps(repaint) == (2, 1)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize('separate', [False, True])
def test_the_learning_rate_schedule_counts_generator_updates_too(separate):
    seen, _ = run_epochs(tiny_task(), tiny_repaint(separate_batches=separate), 4, [0, 1])
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


# What is reported -----------------------------------------------------------------------------------------------------


def test_an_epoch_reports_all_parts_and_hits_in_percent():
    _, (result,) = run_epochs(tiny_task(), tiny_repaint(), 6)
    assert list(result) == ['loss', *LOSSES, 'hits_repaint', 'hits_original']
    assert all(math.isfinite(value) for value in result.values())
    assert 0 <= result['hits_repaint'] <= 100 and min(result[f'g_{part}'] for part in ('feat', 'kl', 'segment_kl')) > 0


def test_without_a_repaint_an_epoch_reports_the_loss_alone():
    batches = [(batch[:, :3], target) for batch, target in (tiny_batch(seed=seed) for seed in range(2))]
    task = tiny_task()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    result = train_one_epoch(0, task, batches, optimizer, loop_args(), task, CPU)
    assert list(result) == ['loss'] and result['loss'] > 0


def test_a_frozen_repainter_has_no_generator_updates_and_its_meters_are_nan(tmp_path):
    torch.save(tiny_repaint().state_dict(), tmp_path / 'start.pth')
    task, repaint = tiny_task(), tiny_repaint(checkpoint=str(tmp_path / 'start.pth'), freeze=True)
    before = snapshot(repaint.repainter)
    seen, (result,) = run_epochs(task, repaint, 4)
    assert changed(repaint.repainter, before) == set() and repaint.discriminator is None
    assert seen == [1, 2, 3, 4] and result['loss'] > 0 and result['hits_repaint'] >= 0
    assert all(result[name] != result[name] for name in LOSSES)


def test_meters_weigh_hits_by_images_and_losses_by_batches():
    meters = TrainMeters(repaints=True)
    for loss, prob, right in ((1.0, 1.0, [1, 0]), (4.0, 0.6, [1, 1, 1, 1, 1, 1, 1, 1, 1, 0])):
        target = torch.zeros(len(right), dtype=torch.int64)
        repaint = tiny_repaint(prob=prob)
        repaint(tiny_batch(len(right))[0], target)
        output = torch.tensor([[1.0, 0.0] if hit else [0.0, 1.0] for hit in right])
        meters.add_task({'loss': torch.tensor(loss), 'output': output}, len(right), target, repaint)
        meters.add_step(StepMetrics(d_loss=torch.tensor(loss)))
    means = meters.means(loop_args(), CPU)
    assert means['loss'] == pytest.approx(3.5)  # (1*2 + 4*10) / 12
    assert means['d_loss'] == pytest.approx(2.5)
    assert means['hits_repaint'] == pytest.approx(87.5)  # 7 of 8
    assert means['hits_original'] == pytest.approx(75.0)  # 3 of 4: a batch without originals does not count
    assert means['g_gan'] != means['g_gan']
