import copy

import pytest
import torch
from timm.models import create_model
from torch import nn

from tests.tiny import changed, snapshot
from timm_repaint.frozen import copy_buffers, frozen, keep_finite, learning
from timm_repaint.networks.spade import SpectralConv2d

pytestmark = pytest.mark.usefixtures('seeded')


def small_net():
    """A spectral convolution, a batch norm and a linear layer, in training mode."""
    return nn.Sequential(SpectralConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def image(batch=4):
    return torch.randn(batch, 3, 8, 8)


def modes(net):
    return [
        (part.training, getattr(part, 'track_running_stats', None), [p.requires_grad for p in part.parameters()])
        for part in net.modules()
    ]


def test_frozen_keeps_every_parameter_and_buffer_bit_by_bit():
    net = small_net()
    before = snapshot(net)
    with frozen(net):
        net(image()).sum()
    assert changed(net, before) == set()
    net(image())
    assert {name.split('.')[-1] for name in changed(net, before)} >= {'running_mean', 'running_var', '_u', '_v'}


def test_frozen_gives_the_same_output_as_training_mode_and_not_as_evaluation():
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), image()
    wanted = copy.deepcopy(net)(x)
    with frozen(net):
        torch.testing.assert_close(net(x), wanted, rtol=0, atol=0)
    assert (net.eval()(x) - wanted).abs().max() > 0.1


def test_gradients_flow_through_to_the_input_but_not_into_the_parameters():
    net, x = small_net(), image().requires_grad_()
    with frozen(net):
        net(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())


def test_parameters_that_were_off_before_stay_off():
    net = small_net()
    net[4].weight.requires_grad_(False)
    with frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ['4.weight']


def test_norms_without_running_statistics_and_layers_in_evaluation_mode_keep_their_modes():
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), SpectralConv2d(3, 3, 1).eval(), nn.BatchNorm2d(3))
    net[2].eval()
    before = modes(net)
    with frozen(net):
        net(image())
    assert modes(net) == before
    assert [part.training for part in net] == [True, False, False]


def test_all_is_as_before_after_an_exception():
    net = small_net()
    net[4].bias.requires_grad_(False)
    before = modes(net)
    with pytest.raises(RuntimeError, match='on purpose'), frozen(net):
        assert modes(net) != before
        raise RuntimeError('on purpose')
    assert modes(net) == before


def test_frozen_inside_frozen_stays_frozen_until_the_outer_one_ends():
    net = small_net()
    before, values = modes(net), snapshot(net)
    with frozen(net):
        with frozen(net):
            pass
        net(image())
        assert not any(p.requires_grad for p in net.parameters())
    assert modes(net) == before and changed(net, values) == set()


def test_none_is_left_out():
    net = small_net()
    with frozen(None, net):
        assert not any(p.requires_grad for p in net.parameters())


def test_gradient_checkpointing_runs_again_without_a_trace():
    net, x = create_model('test_resnet', num_classes=4).train(), torch.randn(4, 3, 32, 32, requires_grad=True)
    with frozen(net):
        plain = torch.autograd.grad(net(x).square().sum(), x)[0]
    net.set_grad_checkpointing()
    before = snapshot(net)
    with frozen(net):
        net(x).square().sum().backward()
    assert changed(net, before) == set()
    torch.testing.assert_close(x.grad, plain)


# Learning -------------------------------------------------------------------------------------------------------------


def test_outside_of_learning_nobody_asks_for_gradients_and_inside_all_do():
    net = small_net().requires_grad_(False)
    with learning(net):
        assert all(p.requires_grad for p in net.parameters())
        loss = net(image()).square().sum()
    assert not any(p.requires_grad for p in net.parameters())
    assert not net(image()).requires_grad
    with learning(net):
        loss.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_learning_ends_with_an_exception_too():
    net = small_net().requires_grad_(False)
    with pytest.raises(RuntimeError, match='on purpose'), learning(net):
        raise RuntimeError('on purpose')
    assert not any(p.requires_grad for p in net.parameters())


def test_learning_moves_the_running_statistics_as_training_does():
    net = small_net().requires_grad_(False)
    twin, x, before = copy.deepcopy(net), image(), snapshot(net)
    with learning(net):
        net(x)
    twin(x)
    assert changed(net, before) and changed(net, snapshot(twin)) == set()


def test_a_graph_made_while_learning_can_be_used_for_one_part_while_the_other_is_frozen():
    net, judge = nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 1).requires_grad_(False)
    with learning(net):
        made = net(torch.ones(1, 3))
    with learning(net), learning(judge):
        with frozen(judge):
            verdict = judge(made).sum()
        verdict.backward()
    assert all(p.grad is not None for p in net.parameters()) and all(p.grad is None for p in judge.parameters())


# Finite statistics ----------------------------------------------------------------------------------------------------


def test_what_is_not_finite_now_is_put_back_value_by_value():
    norm = nn.BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    before = copy_buffers(norm)
    assert before.tolist() == [1, 2, 3, 1, 1, 1]
    norm.running_mean.copy_(torch.tensor([10.0, float('nan'), 30.0]))
    norm.running_var.copy_(torch.tensor([float('inf'), 20.0, -float('inf')]))
    keep_finite(norm, before)
    assert norm.running_mean.tolist() == [10, 2, 30] and norm.running_var.tolist() == [1, 20, 1]
    assert before.tolist() == [1, 2, 3, 1, 1, 1]  # a copy


def test_after_a_batch_that_is_not_finite_statistics_are_as_before_and_after_a_good_one_as_in_training():
    net, x = small_net(), image()
    twin = copy.deepcopy(net)
    floats = {name for name, buffer in net.named_buffers() if buffer.is_floating_point()}
    start, before = snapshot(net), copy_buffers(net)
    with torch.no_grad():
        net(x * float('nan'))
    assert any(value.isnan().any() for value in net.state_dict().values())
    keep_finite(net, before)
    assert not changed(net, start) & {name for name in floats if 'running' in name}
    assert all(value.isfinite().all() for value in net.state_dict().values())
    net.load_state_dict(start)
    for each in (net, twin):
        torch.manual_seed(1)
        each(x)
    keep_finite(net, before)
    assert changed(net, snapshot(twin)) == set()


def test_parameters_and_counts_are_left_alone():
    norm = nn.BatchNorm2d(2)
    before = copy_buffers(norm)
    with torch.no_grad():
        norm.weight.fill_(float('nan'))
    norm.num_batches_tracked += 1
    keep_finite(norm, before)
    assert norm.weight.isnan().all() and norm.num_batches_tracked == 1
