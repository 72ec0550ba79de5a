"""Number formats: sums, exponentials and losses in float32 at least."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32; in float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()
