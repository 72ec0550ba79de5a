"""Who learns is visible: networks that learn inside a block, are only looked through, or keep finite statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_repaint.networks.spade import SpectralConv2d


@contextmanager
def learning(module: nn.Module) -> Iterator[None]:
    """Inside, the module's parameters require gradients; before and after they do not."""
    module.requires_grad_(True)
    try:
        yield
    finally:
        module.requires_grad_(False)


@contextmanager
def frozen(*modules: nn.Module | None) -> Iterator[None]:
    """Inside, the modules pass gradients through, but no state of theirs changes, bit by bit.

    Their parameters get no gradient, their batch norms go on normalising with the batch but leave the running
    statistics alone, their spectral norms do not iterate. Keep the backward pass inside too: gradient checkpointing
    runs the forward pass again there.
    """
    parts = [part for module in modules if module is not None for part in module.modules()]
    parameters = [p for module in modules if module is not None for p in module.parameters() if p.requires_grad]
    norms = [part for part in parts if isinstance(part, _BatchNorm) and part.track_running_stats]
    spectral = [part for part in parts if isinstance(part, SpectralConv2d) and part.training]
    _switch(parameters, norms, spectral, on=False)
    try:
        yield
    finally:
        _switch(parameters, norms, spectral, on=True)


def _switch(parameters: list[nn.Parameter], norms: list[_BatchNorm], spectral: list[SpectralConv2d], on: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(on)
    for norm in norms:
        norm.track_running_stats = on
    for layer in spectral:
        layer.train(on)


def copy_buffers(module: nn.Module) -> Tensor:
    """A copy of the module's floating-point buffers, one behind the other."""
    return torch.cat([buffer.flatten() for buffer in _float_buffers(module)])


@torch.no_grad()
def keep_finite(module: nn.Module, before: Tensor) -> None:
    """Put back what `copy_buffers` copied where a value is not finite now: running statistics would keep one nan."""
    buffers = _float_buffers(module)
    after = copy_buffers(module)
    kept = torch.where(after.isfinite(), after, before).split([buffer.numel() for buffer in buffers])
    torch._foreach_copy_(buffers, [part.view(buffer.shape) for part, buffer in zip(kept, buffers, strict=True)])


def _float_buffers(module: nn.Module) -> list[Tensor]:
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]
