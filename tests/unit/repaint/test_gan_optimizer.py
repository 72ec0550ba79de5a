"""GanOptimizer: Adam with gradients of its own that skips what is not finite; averages over batches."""

import copy
import logging

import pytest
import torch
from torch import nn

from tests.helpers import same_tensors
from tests.tiny import changed, snapshot
from timm_repaint.gan_optimizer import MIN_SCALE, GanOptimizer, average
from timm_repaint.guard import NonFiniteLossError

NAN, INF = float('nan'), float('inf')
ROWS = torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0], [2.0, 0.0, 1.0], [-1.0, 1.0, 0.25]])


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def build(net, max_nonfinite=20, name='generator'):
    return GanOptimizer(name, net, lr=0.1, max_nonfinite=max_nonfinite)


def loss_of(net, rows=ROWS, scale=1.0):
    return net(rows).square().mean() * scale


def sharp_loss(net):
    """0, with a gradient of nan: the slope of the root at 0 is infinite, and what comes behind it is 0."""
    with torch.no_grad():
        net.bias.zero_()
    loss = loss_of(net, torch.zeros(1, 3)).sqrt()
    assert loss.item() == 0
    return loss


def update(optimizer, *losses, **options):
    """An update of a batch a loss."""
    for loss in losses:
        optimizer.add(loss, **options)
    return optimizer.update()


def in_a_row(optimizer):
    return int(optimizer.guard.counts[1])


def steps(optimizer):
    return int(optimizer.tensors[0])


def assert_equal_weights(net, twin):
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


# Updates --------------------------------------------------------------------------------------------------------------


def test_the_first_step_of_adam_is_the_learning_rate_against_the_gradients_sign(net):
    before = snapshot(net)
    loss = loss_of(net)
    signs = [g.sign() for g in torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)]
    update(build(net), loss)
    for (name, parameter), sign in zip(net.named_parameters(), signs, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * sign)


def test_the_steps_are_those_of_torchs_adam(net):
    twin = copy.deepcopy(net)
    optimizer, adam = build(net), torch.optim.Adam(twin.parameters(), lr=0.1, betas=(0.0, 0.999))
    for _ in range(3):
        update(optimizer, loss_of(net))
        adam.zero_grad()
        loss_of(twin).backward()
        adam.step()
    assert_equal_weights(net, twin)


@pytest.mark.parametrize('bad', [NAN, INF, -INF])
def test_a_loss_that_is_not_finite_moves_nothing_and_is_counted(net, bad):
    optimizer, before = build(net), snapshot(net)
    tensors = [tensor.clone() for tensor in optimizer.tensors]
    update(optimizer, loss_of(net) * bad)
    assert changed(net, before) == set() and same_tensors(optimizer.tensors, tensors)
    assert (optimizer.guard.skipped, in_a_row(optimizer)) == (1, 1)
    assert all(p.grad is None for p in net.parameters())


def test_a_loss_that_is_not_finite_with_finite_gradients_is_skipped_too(net):
    optimizer, before = build(net), snapshot(net)
    update(optimizer, loss_of(net) + INF)
    assert changed(net, before) == set() and optimizer.guard.skipped == 1


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_skipped_too(net):
    loss = sharp_loss(net)
    optimizer, before = build(net), snapshot(net)
    update(optimizer, loss)
    assert changed(net, before) == set() and optimizer.guard.skipped == 1


def test_an_update_is_skipped_if_any_of_its_batches_is_bad_and_the_next_one_is_clean(net):
    for losses in ((NAN, 1.0), (1.0, NAN), (1.0, NAN, 1.0)):
        module = copy.deepcopy(net)
        optimizer, twin = build(module), copy.deepcopy(net)
        update(optimizer, *(loss_of(module, scale=scale) for scale in losses))
        assert changed(module, snapshot(net)) == set() and optimizer.guard.skipped == 1
        update(optimizer, loss_of(module))
        update(build(twin), loss_of(twin))
        assert changed(module, twin.state_dict()) == set()
        assert (optimizer.guard.skipped, in_a_row(optimizer)) == (1, 0)


def test_two_half_batches_make_the_step_of_the_full_one(net):
    twin = copy.deepcopy(net)
    whole, halves = build(net), build(twin)
    for _ in range(3):
        update(whole, loss_of(net))
        update(halves, loss_of(twin, ROWS[:2]), loss_of(twin, ROWS[2:]))
    assert_equal_weights(net, twin)


def test_a_sum_over_batches_that_overflows_is_skipped(net):
    optimizer, before = build(net), snapshot(net)
    update(optimizer, *(loss_of(net) * 1e38 for _ in range(4)))  # each by itself has finite gradients
    assert changed(net, before) == set() and optimizer.guard.skipped == 1


def test_a_parameter_without_a_gradient_stays(net):
    optimizer, before = build(net), snapshot(net)
    update(optimizer, (net.weight * torch.arange(1.0, 7.0).view(2, 3)).sum())
    assert changed(net, before) == {'weight'} and steps(optimizer) == 1


def test_an_update_in_which_nobody_has_learned_does_nothing(net):
    optimizer, before = build(net), snapshot(net)
    assert not optimizer.update()
    assert changed(net, before) == set() and (steps(optimizer), optimizer.guard.skipped) == (0, 0)


def test_between_its_calls_no_parameter_has_a_gradient_and_nobody_elses_counts(net):
    twin = copy.deepcopy(net)
    optimizer, other = build(net), build(twin)
    for scale in (1.0, 2.0):
        optimizer.add(loss_of(net, scale=scale))
        other.add(loss_of(twin, scale=scale))
        assert all(p.grad is None for p in net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)  # as clipping or an optimizer of somebody else's would
    optimizer.update()
    other.update()
    assert all(p.grad is None for p in net.parameters())
    assert changed(net, snapshot(twin)) == set()


def test_a_graph_that_is_kept_can_be_used_once_more(net):
    optimizer, twin = build(net), copy.deepcopy(net)
    loss, its = loss_of(net), loss_of(twin)
    optimizer.add(loss, retain_graph=True)
    optimizer.add(loss)
    optimizer.update()
    update(build(twin), its)
    assert changed(net, snapshot(twin)) == set()


# Who is to blame ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('factor', [1.0, NAN])
def test_an_update_that_is_bad_by_somebody_elses_fault_is_not_counted_and_says_so(net, factor):
    optimizer, before = build(net), snapshot(net)
    optimizer.add(loss_of(net, scale=factor))
    excused = optimizer.update(torch.tensor(True))
    assert excused.item() is True and (optimizer.guard.skipped, in_a_row(optimizer)) == (0, 0)
    assert changed(net, before) == set()


# The guard ------------------------------------------------------------------------------------------------------------


def test_a_good_update_ends_the_row_of_bad_ones(net):
    optimizer = build(net, max_nonfinite=3)
    for factor in (NAN, NAN, 1.0, NAN, NAN, 1.0):
        update(optimizer, loss_of(net, scale=factor))
    assert (optimizer.guard.skipped, in_a_row(optimizer)) == (4, 0)


def test_a_skipped_update_is_told_once_an_update_later(net, caplog):
    optimizer, told = build(net), []
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        for factor in (NAN, 1.0, 1.0, NAN, NAN, 1.0):
            update(optimizer, loss_of(net, scale=factor))
            told.append(caplog.messages[:])
            caplog.clear()
    first, second, third = (
        [f'The generator loss is not finite: update skipped ({count} so far).'] for count in (1, 2, 3)
    )
    assert told == [[], first, [], [], second, third]


@pytest.mark.parametrize(('name', 'option'), [('generator', 'g_lr'), ('discriminator', 'd_lr')])
def test_too_many_bad_updates_in_a_row_stop_the_run_one_update_later_and_say_what_helps(net, name, option):
    optimizer, before = build(net, max_nonfinite=3, name=name), snapshot(net)
    for _ in range(3):
        update(optimizer, loss_of(net) * NAN)
    flag = f'--repaint-{option.replace("_", "-")}'
    message = rf'the {name} loss was not finite in 3 updates in a row; try a lower {option} \({flag}\), or bfloat16'
    with pytest.raises(NonFiniteLossError, match=message):
        update(optimizer, loss_of(net) * NAN)
    assert changed(net, before) == set()


# Averages -------------------------------------------------------------------------------------------------------------


def test_sums_over_batches_become_means_in_place_and_flags_pass():
    gradients = [torch.tensor([3.0, -6.0]), torch.tensor([[9.0]])]
    assert [bool(flag) for flag in average(gradients, [torch.tensor(True), torch.tensor(False)], 3)] == [True, False]
    assert same_tensors(gradients, [torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])])


# Where it learns in float16 -------------------------------------------------------------------------------------------


def update_float16(optimizer, *losses):
    return update(optimizer, *losses, float16=True)


def scale_of(optimizer):
    return optimizer.scaler.get_scale()


def test_with_a_gradient_scaler_the_steps_are_the_same(net):
    twin = copy.deepcopy(net)
    plain, with_scaler = build(net), build(twin)
    for _ in range(3):
        update(plain, loss_of(net))
        update_float16(with_scaler, loss_of(twin, ROWS[:2]), loss_of(twin, ROWS[2:]))
    assert plain.scaler is None and scale_of(with_scaler) == 2**16
    assert_equal_weights(net, twin)


def test_the_scaler_keeps_gradients_that_float16_would_lose():
    half = nn.Linear(3, 2)
    optimizer, before = build(half), snapshot(half)

    def tiny_loss():
        return (half.weight.half() * 1e-5).float().sum() * 1e-3  # a slope of 1e-8, below float16's smallest number

    update(optimizer, tiny_loss())
    assert changed(half, before) == set()
    update_float16(optimizer, tiny_loss())
    assert changed(half, before) == {'weight'}


def test_with_a_gradient_scaler_a_bad_loss_is_skipped_and_counted(net):
    optimizer = build(net)
    update_float16(optimizer, loss_of(net))
    for bad in (loss_of(net) * NAN, loss_of(net) + INF):
        before = snapshot(net)
        update_float16(optimizer, bad)
        assert changed(net, before) == set() and steps(optimizer) == 1
    assert (optimizer.guard.skipped, in_a_row(optimizer)) == (2, 2)
    update_float16(optimizer, loss_of(net))
    assert changed(net, before) and (in_a_row(optimizer), steps(optimizer)) == (0, 2)


def test_a_gradient_that_overflows_halves_the_scale_and_counts_only_when_there_is_nothing_left_to_halve(net):
    optimizer, halvings = build(net), 0
    sharp_loss(net)
    before = snapshot(net)
    while not optimizer.guard.skipped:
        update_float16(optimizer, sharp_loss(net))
        halvings += 1
        assert scale_of(optimizer) == 2.0 ** (16 - halvings)
    assert 2 * scale_of(optimizer) == MIN_SCALE and halvings == 17
    assert changed(net, before) == set() and steps(optimizer) == 0


def test_the_scaler_stays_once_it_is_there(net):
    optimizer, twin = build(net), copy.deepcopy(net)
    plain = build(twin)
    update_float16(optimizer, loss_of(net))
    update(optimizer, loss_of(net))
    for _ in range(2):
        update(plain, loss_of(twin))
    assert_equal_weights(net, twin)


# Its tensors ----------------------------------------------------------------------------------------------------------


def test_its_tensors_are_there_from_the_start_in_one_order_and_take_the_state_of_another_one(net):
    optimizer = build(net)
    shapes = [tuple(tensor.shape) for tensor in optimizer.tensors]
    assert shapes == [(), (2, 3), (2, 3), (), (2,), (2,)] and not any(tensor.any() for tensor in optimizer.tensors)
    for factor in (1.0, NAN, 1.0):
        update(optimizer, loss_of(net, scale=factor))
    assert [tuple(tensor.shape) for tensor in optimizer.tensors] == shapes and steps(optimizer) == 2
    other = copy.deepcopy(net)
    resumed = build(other)
    for own, its in zip(resumed.tensors, optimizer.tensors, strict=True):
        own.copy_(its)
    for module, its in ((net, optimizer), (other, resumed)):
        update(its, loss_of(module))
    assert changed(net, other.state_dict()) == set() and same_tensors(optimizer.tensors, resumed.tensors)


def test_after_a_cast_the_moments_follow_their_parameters(net):
    optimizer, twin = build(net), copy.deepcopy(net).double()
    other = build(twin)
    update(optimizer, loss_of(net))
    update(other, loss_of(twin, ROWS.double()))
    net.double()
    optimizer.follow_parameters()
    update(optimizer, loss_of(net, ROWS.double()))
    update(other, loss_of(twin, ROWS.double()))
    assert [tensor.dtype for tensor in optimizer.tensors] == 2 * [torch.float32, torch.float64, torch.float64]
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
