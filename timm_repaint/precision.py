"""Number formats: sums, exponentials and losses in float32 at least."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32; in float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()


# Asked once: torch 2.6 cannot compile the question.
AUTOCAST_DEVICES = frozenset(
    kind for kind in ('cpu', 'cuda', 'xpu', 'mps', 'hpu', 'mtia') if torch.amp.is_autocast_available(kind)
)


def working_dtype(x: Tensor) -> torch.dtype:
    """Number format in which convolutions of x compute: autocast's, or its own."""
    kind = x.device.type
    if x.dtype == torch.float64 or kind not in AUTOCAST_DEVICES or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


def is_finite(x: Tensor) -> Tensor:
    """Where the tensor is finite: half of the operators of torch's own."""
    return x.abs() < float('inf')


def autocast_state(device_type: str) -> dict[str, Any]:
    """Arguments of `torch.autocast` for the state that it is in now; weights are cast anew, as they change."""
    return {
        'device_type': device_type,
        'dtype': torch.get_autocast_dtype(device_type),
        'enabled': torch.is_autocast_enabled(device_type),
        'cache_enabled': False,
    }


def cast_once(module: nn.Module, device_type: str) -> dict[str, Tensor]:
    """Weights and biases of a module's plain convolutions in autocast's type by their names, for `functional_call`.

    One cast for all of them, and one for their gradients, where autocast has one a tensor. Nothing without autocast.
    """
    if not torch.is_autocast_enabled(device_type):
        return {}
    own = {
        f'{prefix}.{name}': parameter
        for prefix, part in module.named_modules()
        if isinstance(part, nn.Conv2d) and not hasattr(part, 'parametrizations')
        for name, parameter in part.named_parameters(recurse=False)
    }
    if not own:
        return {}
    # As they lie in memory: [out, k, k, in] where channels are last.
    orders = [_order_in_memory(parameter) for parameter in own.values()]
    lying = [parameter.permute(*order) for parameter, order in zip(own.values(), orders, strict=True)]
    flat = torch.cat([part.reshape(-1) for part in lying]).to(torch.get_autocast_dtype(device_type))
    parts = flat.split([part.numel() for part in lying])
    return {
        name: part.view(shaped.shape).permute(*(order.index(dim) for dim in range(len(order))))
        for name, part, shaped, order in zip(own, parts, lying, orders, strict=True)
    }


def _order_in_memory(x: Tensor) -> tuple[int, ...]:
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return (0, 2, 3, 1) if last else tuple(range(x.ndim))


def call_cast_once(module: nn.Module, *inputs: Any) -> Any:
    """The module's value, by the weights of `cast_once`; compiled code fuses its casts anyway."""
    compiled = getattr(module, '_compiled_call_impl', None) is not None
    return module(*inputs) if compiled else functional_call(module, cast_once(module, inputs[0].device.type), inputs)
