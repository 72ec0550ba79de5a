"""One batch of all processes."""

import torch
from torch import Tensor


def gather_rows(values: Tensor) -> Tensor:
    """The rows of all processes, which have equally many: [B, ...] -> [processes * B, ...]."""
    if not is_distributed():
        return values
    gathered = values.new_empty(torch.distributed.get_world_size() * len(values), *values.shape[1:])
    torch.distributed.all_gather_into_tensor(gathered, values.contiguous())
    return gathered


def is_distributed() -> bool:
    """Whether several processes train together."""
    group = torch.distributed
    return group.is_available() and group.is_initialized() and group.get_world_size() > 1
