"""A header and tensors as one uint8 tensor, and back: a module's extra state that any kind of file can hold.

The tensor lies on the device of its parts, so nobody waits for the device to make it, and its length depends on the
header and the tensors' shapes alone.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from timm_repaint.errors import UsageError

FORMAT = 1
LENGTH_BYTES = 8


def pack(header: dict[str, Any], tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """[bytes] uint8 on the device: the header's length, the header as JSON, the tensors' bytes."""
    text = json.dumps({'format': FORMAT, **header}).encode()
    head = torch.frombuffer(bytearray(len(text).to_bytes(LENGTH_BYTES, 'little') + text), dtype=torch.uint8)
    return torch.cat([head.to(device), *(_bytes(tensor).to(device) for tensor in tensors)])


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def read_header(state: Any) -> dict[str, Any]:
    """The header of a packed state, on any device.

    Raises:
        UsageError: if it is none.
    """
    return _read(state)[0]


def _read(state: Any) -> tuple[dict[str, Any], Tensor]:
    """The header, and the bytes behind it, on the CPU."""
    try:
        content = state.detach().cpu()
        length = int.from_bytes(content[:LENGTH_BYTES].numpy().tobytes(), 'little')
        header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length].numpy().tobytes())
        if header['format'] != FORMAT:
            raise ValueError(f'format {header["format"]}')
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise UsageError(f'this is not the state of a Repaint: {error}; load repaint.state_dict()') from error
    return header, content[LENGTH_BYTES + length :]


@torch.no_grad()
def unpack(state: Any, tensors: Sequence[Tensor], floating: torch.dtype | None = None) -> None:
    """Fill tensors from a packed state, in the order in which they were packed; bytes that are left over are ignored.

    Args:
        state: As from `pack`.
        tensors: To fill, of the shapes that were packed.
        floating: Number format of floating-point tensors with dimensions when they were packed; None: theirs.

    Raises:
        UsageError: if the state is none, or too short.
    """
    content = _read(state)[1]
    for tensor in tensors:
        converts = floating is not None and tensor.is_floating_point() and tensor.ndim > 0
        dtype = floating if converts and floating is not None else tensor.dtype
        length = tensor.numel() * dtype.itemsize
        if len(content) < length:
            raise UsageError('the state of the Repaint is cut off; load another checkpoint')
        tensor.copy_(content[:length].clone().view(dtype).view(tensor.shape))
        content = content[length:]
