"""Casts of many tensors at once, and finiteness."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from timm_repaint.networks.spade import SpectralConv2d
from timm_repaint.precision import call_cast_once, cast_once, is_finite


class Casts(TorchDispatchMode):
    """Counts casts."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[torch.channels_last, torch.contiguous_format], ids=str)
def layers(request):
    torch.manual_seed(0)
    convs = (nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, bias=False), SpectralConv2d(4, 2, 1), nn.Conv2d(2, 5, 3))
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(5, 2)).to(memory_format=request.param).eval()


def test_convolutions_are_cast_together_and_compute_and_learn_as_autocast_has_them(layers):
    x, other = torch.randn(2, 3, 5, 5), copy.deepcopy(layers)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        with Casts() as casts:
            ours = call_cast_once(layers, x)
        with Casts() as by_autocast:
            theirs = other(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert casts.count <= by_autocast.count - 4  # one for five tensors
    with Casts() as casts:
        ours.float().square().sum().backward()
    theirs.float().square().sum().backward()
    grads, wanted = ({name: p.grad for name, p in net.named_parameters()} for net in (layers, other))
    torch.testing.assert_close(grads, wanted, rtol=0, atol=0)
    for name, parameter in layers.named_parameters():
        for layout in (torch.channels_last, torch.contiguous_format):
            if parameter.ndim == 4 and parameter.is_contiguous(memory_format=layout):
                assert grads[name].is_contiguous(memory_format=layout)


def test_only_plain_convolutions_are_cast_and_nothing_without_autocast(layers):
    assert cast_once(layers, 'cpu') == {}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        given = cast_once(layers, 'cpu')
    assert set(given) == {'0.weight', '0.bias', '1.weight', '3.weight', '3.bias'}
    for name, tensor in given.items():
        own = layers.get_parameter(name)
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, own.bfloat16())
        assert tensor.stride() == own.stride() or own.shape[-1] == 1


def test_what_is_finite():
    x = torch.tensor([0.0, -1e38, float('nan'), float('inf'), -float('inf')])
    assert is_finite(x).tolist() == x.isfinite().tolist()
