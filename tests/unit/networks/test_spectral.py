"""Spectral norm of all layers at once is torch's, layer by layer."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from timm_repaint.networks.spade import SpectralConv2d
from timm_repaint.networks.spectral import SpectralWeights


def make_layers():
    torch.manual_seed(0)
    layers = [SpectralConv2d(3, 5, 4), SpectralConv2d(5, 2, 3), SpectralConv2d(7, 1, 1)]
    return torch.nn.ModuleList(layers).double().to(memory_format=torch.channels_last)


def original_of(layer):
    return layer.parametrizations.weight.original


@pytest.mark.parametrize('modes', [(True, True, True), (True, False), (False,)], ids=str)
def test_weights_gradients_and_vectors_are_those_of_torchs_layers(modes, device):
    ours, theirs = make_layers().to(device), make_layers().to(device)
    spectral = SpectralWeights(ours).double().to(device)
    for learns in modes:
        ours.train(learns), theirs.train(learns)
        given, wanted = spectral(ours), [(layer.weight, layer.bias) for layer in theirs]
        factors = [torch.randn_like(weight) for weight, _ in wanted]
        for pairs in (given, wanted):
            sum((weight * factor).sum() for (weight, _), factor in zip(pairs, factors, strict=True)).backward()
        torch.testing.assert_close(given, wanted)
        torch.testing.assert_close(
            [original_of(layer).grad for layer in ours], [original_of(layer).grad for layer in theirs]
        )
        torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight, _ in given)


def test_under_autocast_one_cast_serves_all_and_gradients_are_not_rounded_twice():
    class Casts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func is torch.ops.aten._to_copy.default
            return func(*args, **(kwargs or {}))

    layers = make_layers().float()
    plain = SpectralWeights(layers)(copy.deepcopy(layers))
    with Casts() as casts, torch.autocast('cpu', dtype=torch.bfloat16):
        given = SpectralWeights(layers)(layers)
    assert casts.count == 1
    assert {tensor.dtype for pair in given for tensor in pair} == {torch.bfloat16}
    torch.testing.assert_close([(w.float(), b.float()) for w, b in given], plain, rtol=2**-8, atol=0)
    sum(weight.sum() for weight, _ in given).backward()
    assert {original_of(layer).grad.dtype for layer in layers} == {torch.float32}


def test_the_positions_move_with_the_module_and_are_in_no_state():
    spectral = SpectralWeights(make_layers())
    assert not spectral.state_dict() and not list(spectral.buffers())
    assert spectral.double().places.zero.dtype == torch.float64
    assert spectral.places.padded.dtype == torch.int64
    assert spectral.to('meta').places.padded.is_meta
