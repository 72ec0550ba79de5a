import copy

import pytest
import torch
from timm.models import create_model
from torch import nn

from tests.tiny import changed, snapshot, tiny_classifier
from timm_repaint.frozen import frozen, untracked
from timm_repaint.networks import SpectralConv2d


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


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


@pytest.mark.parametrize('context', [frozen, untracked])
def test_all_is_as_before_after_an_exception(context):
    net = small_net()
    net[4].bias.requires_grad_(False)
    before = modes(net)
    with pytest.raises(RuntimeError, match='on purpose'), context(net):
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


def test_untracked_learns_as_in_training_and_leaves_the_running_statistics_alone():
    net, x = tiny_classifier().train(), torch.randn(4, 3, 32, 32)
    twin = copy.deepcopy(net)
    before = snapshot(net)
    with untracked(net):
        net(x).square().sum().backward()
    twin(x).square().sum().backward()
    assert changed(net, before) == set()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)
