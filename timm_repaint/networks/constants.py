"""Tensors that are computed once and kept beside the parameters."""

from typing import Any

import torch
from torch import Tensor, nn


class Constants(nn.Module):
    """Tensors that follow the module's device, and are in no state: neither parameters nor buffers.

    Buffers would be sent by wrappers for several processes at every forward pass.
    """

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        self._names = tuple(tensors)
        self._cast: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            setattr(self, name, tensor)

    def _apply(self, fn: Any, recurse: bool = True) -> 'Constants':
        self._cast.clear()
        for name in self._names:
            setattr(self, name, fn(getattr(self, name)))
        return super()._apply(fn, recurse)

    def like(self, name: str, x: Tensor) -> Tensor:
        """A tensor in x's number format; the latest cast is kept."""
        own: Tensor = getattr(self, name)
        if own.dtype == x.dtype or torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return own.to(x.dtype)  # a cast of inference mode could not be saved for a backward pass
        if name not in self._cast or self._cast[name].dtype != x.dtype:
            self._cast[name] = own.to(x.dtype)
        return self._cast[name]
