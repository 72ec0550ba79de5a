"""Tensors that are computed once and kept beside the parameters."""

from typing import Any

from torch import Tensor, nn


class Constants(nn.Module):
    """Tensors that follow the module's device, and are in no state: neither parameters nor buffers.

    Buffers would be sent by wrappers for several processes at every forward pass.
    """

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        self._names = tuple(tensors)
        for name, tensor in tensors.items():
            setattr(self, name, tensor)

    def _apply(self, fn: Any, recurse: bool = True) -> 'Constants':
        for name in self._names:
            setattr(self, name, fn(getattr(self, name)))
        return super()._apply(fn, recurse)
