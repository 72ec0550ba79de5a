import copy
import io
import logging

import pytest
import torch
from timm.utils import NativeScaler
from torch import nn

from tests.helpers import same_tensors
from tests.tiny import changed, snapshot
from timm_repaint.gan_optimizer import GanOptimizer, NonFiniteLossError, all_agree, gradient_norm

NAN, INF = float('nan'), float('inf')


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def build(net, max_nonfinite=20, name='generator'):
    return GanOptimizer(name, net.parameters(), lr=0.1, max_nonfinite=max_nonfinite)


def loss_of(net, rows, scale=1.0):
    return net(rows).square().mean() * scale


ROWS = torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0], [2.0, 0.0, 1.0], [-1.0, 1.0, 0.25]])


def test_the_first_step_of_adam_is_the_learning_rate_against_the_gradients_sign(net):
    before = snapshot(net)
    loss = loss_of(net, ROWS)
    signs = [g.sign() for g in torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)]
    build(net).backward(loss, need_update=True)
    for (name, parameter), sign in zip(net.named_parameters(), signs, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * sign)


@pytest.mark.parametrize('bad', [NAN, INF, -INF])
def test_a_loss_that_is_not_finite_moves_nothing_and_is_counted(net, bad, caplog):
    optimizer, before = build(net), snapshot(net)
    with caplog.at_level(logging.WARNING, logger='train'):
        optimizer.backward(loss_of(net, ROWS) * bad, need_update=True)
    assert changed(net, before) == set()
    assert optimizer.adam.state == {}
    assert (optimizer.skipped, optimizer.skipped_in_a_row) == (1, 1)
    assert all(p.grad is None for p in net.parameters())
    assert 'The generator loss is not finite: update skipped (1 so far).' in caplog.text


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_skipped_too(net):
    optimizer, before = build(net), snapshot(net)
    with torch.no_grad():
        net.bias.zero_()
    before = snapshot(net)
    loss = loss_of(net, torch.zeros(1, 3)).sqrt()  # 0, and its slope there is infinite: inf * 0
    assert loss.item() == 0
    optimizer.backward(loss, need_update=True)
    assert changed(net, before) == set() and optimizer.skipped == 1


def test_an_update_is_skipped_if_any_of_its_batches_is_bad_and_the_next_one_is_clean(net):
    optimizer, twin = build(net), copy.deepcopy(net)
    before = snapshot(net)
    optimizer.backward(loss_of(net, ROWS) * NAN, need_update=False)
    optimizer.backward(loss_of(net, ROWS), need_update=True)
    assert changed(net, before) == set() and optimizer.skipped == 1
    optimizer.backward(loss_of(net, ROWS), need_update=True)
    build(twin).backward(loss_of(twin, ROWS), need_update=True)
    assert changed(net, twin.state_dict()) == set()
    assert (optimizer.skipped, optimizer.skipped_in_a_row) == (1, 0)


def test_a_good_update_ends_the_row_of_bad_ones(net):
    optimizer = build(net, max_nonfinite=3)
    for factor in (NAN, NAN, 1.0, NAN, NAN, 1.0):
        optimizer.backward(loss_of(net, ROWS) * factor, need_update=True)
    assert (optimizer.skipped, optimizer.skipped_in_a_row) == (4, 0)


@pytest.mark.parametrize(('name', 'option'), [('generator', '--repaint-g-lr'), ('discriminator', '--repaint-d-lr')])
def test_too_many_bad_updates_in_a_row_stop_the_run_and_say_what_helps(net, name, option):
    optimizer = build(net, max_nonfinite=3, name=name)
    for _ in range(2):
        optimizer.backward(loss_of(net, ROWS) * NAN, need_update=True)
    message = f'the {name} loss was not finite in 3 updates in a row; .* lower {option}, or with --amp-dtype bfloat16'
    with pytest.raises(NonFiniteLossError, match=message):
        optimizer.backward(loss_of(net, ROWS) * NAN, need_update=True)


def test_two_half_batches_make_the_step_of_the_full_one(net):
    twin = copy.deepcopy(net)
    whole, halves = build(net), build(twin)
    for _ in range(3):
        whole.backward(loss_of(net, ROWS), need_update=True)
        halves.backward(loss_of(twin, ROWS[:2]) / 2, need_update=False)
        halves.backward(loss_of(twin, ROWS[2:]) / 2, need_update=True)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_saved_state_goes_on_bit_by_bit_and_holds_plain_values_only(net):
    optimizer = build(net)
    for factor in (1.0, NAN, 1.0, NAN):
        optimizer.backward(loss_of(net, ROWS) * factor, need_update=True)
    file = io.BytesIO()
    torch.save({'net': net.state_dict(), 'optimizer': optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = nn.Linear(3, 2)
    other.load_state_dict(saved['net'])
    resumed = build(other)
    resumed.load_state_dict(saved['optimizer'])
    assert (resumed.skipped, resumed.skipped_in_a_row) == (2, 1)
    for module, its in ((net, optimizer), (other, resumed)):
        its.backward(loss_of(module, ROWS), need_update=True)
    assert changed(net, other.state_dict()) == set()
    assert same_tensors(optimizer.state_dict(), resumed.state_dict())


def test_gradient_norm_is_that_of_all_gradients_together(net):
    net.weight.grad, net.bias.grad = torch.full((2, 3), 2.0), None
    assert gradient_norm(net.parameters()).item() == pytest.approx(24**0.5)
    net.bias.grad = torch.tensor([5.0, 0.0])
    assert gradient_norm(net.parameters()).item() == pytest.approx(7.0)


def test_one_process_agrees_with_itself():
    assert all_agree(torch.tensor(True), distributed=False) and not all_agree(torch.tensor(False), distributed=False)


def scaled(net):
    return GanOptimizer('generator', net.parameters(), lr=0.1, scaler=NativeScaler(device='cpu'))


def test_with_a_gradient_scaler_the_steps_are_the_same(net):
    twin = copy.deepcopy(net)
    plain, with_scaler = build(net), scaled(twin)
    for _ in range(3):
        plain.backward(loss_of(net, ROWS), need_update=True)
        with_scaler.backward(loss_of(twin, ROWS[:2]) / 2, need_update=False)
        with_scaler.backward(loss_of(twin, ROWS[2:]) / 2, need_update=True)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_with_a_gradient_scaler_a_bad_loss_is_skipped_without_a_change_of_scale(net):
    optimizer = scaled(net)
    optimizer.backward(loss_of(net, ROWS), need_update=True)
    before, scale = snapshot(net), optimizer.state_dict()['scaler']['scale']
    optimizer.backward(loss_of(net, ROWS) * NAN, need_update=True)
    assert changed(net, before) == set()
    assert (optimizer.skipped, optimizer.state_dict()['scaler']['scale']) == (1, scale)
    optimizer.backward(loss_of(net, ROWS), need_update=True)
    assert changed(net, before) and optimizer.skipped_in_a_row == 0


def test_a_saved_scaler_keeps_its_scale(net):
    optimizer, resumed = scaled(net), scaled(net)
    with torch.no_grad():
        net.bias.zero_()
    optimizer.backward(
        loss_of(net, torch.zeros(1, 3)).sqrt(), need_update=True
    )  # its gradient is nan: the scale halves
    assert optimizer.state_dict()['scaler']['scale'] == resumed.state_dict()['scaler']['scale'] / 2
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.state_dict()['scaler'] == optimizer.state_dict()['scaler']


# Where the host does not wait for the device --------------------------------------------------------------------------


def late(net, **options):
    """The optimizer as it is off the CPU: a fused step that reads the flag itself."""
    optimizer = build(net, **options)
    optimizer.reads_late = True
    optimizer.adam.param_groups[0]['fused'] = True
    return optimizer


def test_a_flag_that_is_read_late_skips_the_same_updates(net):
    twin = copy.deepcopy(net)
    at_once, later = build(net), late(twin)
    for factor in (1.0, NAN, 1.0, INF, 1.0):
        for module, optimizer in ((net, at_once), (twin, later)):
            optimizer.backward(loss_of(module, ROWS) * factor, need_update=True)
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert (later.skipped, later.skipped_in_a_row) == (at_once.skipped, at_once.skipped_in_a_row) == (2, 0)
    assert later.adam.state_dict()['state'][0]['step'] == 3


def test_a_flag_that_is_read_late_stops_the_run_one_update_later(net):
    optimizer, before = late(net, max_nonfinite=2), snapshot(net)
    for _ in range(2):
        optimizer.backward(loss_of(net, ROWS) * NAN, need_update=True)
    with pytest.raises(NonFiniteLossError, match='in 2 updates in a row'):
        optimizer.backward(loss_of(net, ROWS), need_update=True)
    assert changed(net, before) == set()


def test_a_state_goes_over_from_one_kind_of_step_to_the_other(net):
    twin = copy.deepcopy(net)
    optimizer = build(net)
    optimizer.backward(loss_of(net, ROWS), need_update=True)
    twin.load_state_dict(net.state_dict())
    resumed = late(twin)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.adam.param_groups[0]['fused'] is True
    for module, its in ((net, optimizer), (twin, resumed)):
        its.backward(loss_of(module, ROWS), need_update=True)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    optimizer.load_state_dict(resumed.state_dict())
    assert optimizer.adam.param_groups[0]['fused'] is False
