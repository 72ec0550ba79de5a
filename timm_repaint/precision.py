"""Number formats: sums, exponentials and losses in float32 at least."""

from typing import Any

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32; in float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def autocast_state(device_type: str) -> dict[str, Any]:
    """Arguments of `torch.autocast` for the state that it is in now; weights are cast anew, as they change."""
    return {
        'device_type': device_type,
        'dtype': torch.get_autocast_dtype(device_type),
        'enabled': torch.is_autocast_enabled(device_type),
        'cache_enabled': False,
    }
