"""One batch of all processes."""

import torch
from torch import Tensor


def gather_rows(values: Tensor) -> Tensor:
    """The rows of all processes, which have equally many: [B, ...] -> [processes * B, ...]."""
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()):
        return values
    gathered = values.new_empty(group.get_world_size() * len(values), *values.shape[1:])
    group.all_gather_into_tensor(gathered, values.contiguous())
    return gathered
