"""Spectral norm (Miyato et al., ICLR 2018) of all layers of a network at once.

Layer by layer, as torch has it, it is half of the operators of a discriminator's step. Here the weights are gathered
into one stack of padded matrices: two dozen operators, whatever the number of layers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from timm_repaint.networks.constants import Constants
from timm_repaint.networks.spade import SpectralConv2d

EPS = 1e-12


class Places(Constants):
    """Where the entries of layers' weights and right singular vectors are, in a flat vector and in a padded stack.

    Flat vectors hold the layers one behind the other and then a zero, the weights in the order of channels last.
    """

    padded: Tensor  # [L, rows, columns] positions in the flat weights
    flat: Tensor  # [N + 1] positions in the padded stack, of the zero an arbitrary one
    layer: Tensor  # [N + 1] which layer a flat weight is of
    padded_u: Tensor  # [L, rows] positions in the flat left vectors
    padded_v: Tensor  # [L, columns] positions in the flat right vectors, which are in torch's order
    flat_v: Tensor  # [M] positions in the padded right vectors
    zero: Tensor  # [1]

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        sizes = [shape.numel() for shape in shapes]
        widths = [size // shape[0] for size, shape in zip(sizes, shapes, strict=True)]
        rows, columns = max(shape[0] for shape in shapes), max(widths)
        padded = torch.full((len(shapes), rows, columns), sum(sizes))
        padded_v = torch.full((len(shapes), columns), sum(widths))
        padded_u = torch.full((len(shapes), rows), sum(shape[0] for shape in shapes))
        flat, flat_v, starts = [], [], [0, 0, 0]
        positions = torch.arange(padded.numel()).view(padded.shape)
        for index, (shape, width) in enumerate(zip(shapes, widths, strict=True)):
            here = (index, slice(shape[0]), slice(width))
            padded[here] = starts[0] + torch.arange(shape.numel()).view(shape[0], width)
            flat.append(positions[here].flatten())
            order = torch.arange(width).view(shape[1:]).permute(1, 2, 0).flatten()  # torch's column of each of ours
            padded_v[index, :width] = starts[1] + order
            flat_v.append(index * columns + order.argsort())
            padded_u[index, : shape[0]] = starts[2] + torch.arange(shape[0])
            starts = [starts[0] + shape.numel(), starts[1] + width, starts[2] + shape[0]]
        layer = torch.arange(len(shapes)).repeat_interleave(torch.tensor(sizes))
        super().__init__(
            padded=padded,
            flat=torch.cat([*flat, flat[0][:1]]),
            layer=torch.cat([layer, layer[-1:]]),
            padded_u=padded_u,
            padded_v=padded_v,
            flat_v=torch.cat(flat_v),
            zero=torch.zeros(1),
        )


class SpectralWeights(nn.Module):
    """The weights of spectral-norm convolutions, divided by their largest singular values.

    In training it does one step of the power iteration of each and keeps the vectors in the layers, as theirs does.

    Args:
        layers: They stay the owner's; `forward` wants the same ones.
    """

    def __init__(self, layers: Sequence[SpectralConv2d]) -> None:
        super().__init__()
        weights = [_parametrized(layer) for layer in layers]
        self.places = Places([weight.original.shape for weight in weights])

    def forward(self, layers: Sequence[SpectralConv2d]) -> list[tuple[Tensor, Tensor]]:
        """Weight [out, in, k, k] and bias [out] of each, with gradients to the layers' own; in autocast's type."""
        own = [_parametrized(layer) for layer in layers]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        sizes = [weight.original.numel() for weight in own]
        device_type = self.places.zero.device.type
        given_type = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
        with torch.autocast(device_type, enabled=False):
            pieces = [weight.original.permute(0, 2, 3, 1).reshape(-1) for weight in own]
            flat = torch.cat([*pieces, self.places.zero])  # [N + 1]
            found = self._singular_values(flat.detach(), [weight[0] for weight in own], layers[0].training)
            flat = _Normalise.apply(flat, *found, self.places.padded, self.places.flat, self.places.layer)
            if given_type is not None:  # one cast for all
                flat = torch.cat([flat, *biases]).to(given_type)
                flat, *biases = flat.split([sum(sizes) + 1, *(len(bias) for bias in biases)])
        weights = [
            part.view(weight.original.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
            for part, weight in zip(flat.split([*sizes, 1])[:-1], own, strict=True)
        ]
        return list(zip(weights, biases, strict=True))

    @torch.no_grad()
    def _singular_values(self, flat: Tensor, norms: Sequence[Any], iterate: bool) -> tuple[Tensor, ...]:
        """Padded matrices [L, rows, columns], their vectors u [L, rows] and v [L, columns], and u W v, [L]."""
        places = self.places
        matrices = flat.take(places.padded)
        v = torch.cat([*(norm._v for norm in norms), places.zero]).take(places.padded_v)
        if not iterate:
            u = torch.cat([*(norm._u for norm in norms), places.zero]).take(places.padded_u)
            return matrices, u, v, ((u[:, None] @ matrices)[:, 0] * v).sum(dim=1)
        u, _ = _unit((matrices @ v[:, :, None])[:, :, 0])
        v, sigma = _unit((u[:, None] @ matrices)[:, 0])  # its length is u W v
        new_us = [row[: len(norm._u)] for row, norm in zip(u, norms, strict=True)]
        new_vs = v.take(places.flat_v).split([len(norm._v) for norm in norms])
        torch._foreach_copy_([*(norm._u for norm in norms), *(norm._v for norm in norms)], [*new_us, *new_vs])
        return matrices, u, v, sigma[:, 0]


def _parametrized(layer: Any) -> Any:
    return layer.parametrizations.weight


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_min_(EPS)
    return vectors / lengths, lengths


class _Normalise(torch.autograd.Function):
    """Flat weights over their layers' s = u W v, u and v being constants.

    A gradient g at W / s is (g - <g, W / s> u v) / s at W. By hand, as indexing's own gradient is a scatter.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, *constants: Tensor) -> Tensor:
        """`constants`: what `_singular_values` gives, then the positions `padded`, `flat` and `layer` of `Places`."""
        _, _, _, sigma, _, _, layer = constants
        ctx.save_for_backward(*constants)
        return flat / sigma.take(layer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        """To `flat` alone."""
        matrices, u, v, sigma, padded, places, _ = ctx.saved_tensors
        gradients = gradient[0].take(padded)
        shares = (gradients * matrices).sum(dim=(1, 2)) / sigma
        across = torch.baddbmm(gradients, (shares[:, None] * u)[:, :, None], v[:, None], alpha=-1)
        return (across / sigma[:, None, None]).take(places), None, None, None, None, None, None, None
