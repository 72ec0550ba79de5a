"""Who learns is visible: networks that are only looked through, or only read from, in an update."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from timm_repaint.networks.spade import SpectralConv2d


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


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Inside, the module learns, but its batch norms leave their running statistics alone."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    _switch([], norms, [], on=False)
    try:
        yield
    finally:
        _switch([], norms, [], on=True)
