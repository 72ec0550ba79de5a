"""The state of a `Repaint` beside its networks' tensors: one uint8 tensor of constant length.

It holds a header (settings, as JSON), counters, gradient scalers and Adam's moments. They are no buffers: those a
wrapper for several processes would send at every forward pass, and casts would change them.
"""

import json
import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from timm_repaint.config import RepaintConfig
from timm_repaint.errors import UsageError
from timm_repaint.gan_optimizer import GanOptimizer, is_distributed
from timm_repaint.guard import Guard

if TYPE_CHECKING:
    from timm_repaint.repaint import Repaint

_logger = logging.getLogger('timm_repaint')
FORMAT = 1
LENGTH_BYTES = 8
# Of the machine, the start or the networks (which have their own entry), not of the training.
NO_SETTINGS = ('masks', 'checkpoint', 'freeze', 'generator', 'width', 'latent', 'latent_dim', 'detail', 'temperature')


def pack_state(repaint: 'Repaint') -> Tensor:
    """[bytes] uint8 on the networks' device; nobody waits for the device, but for gradient scalers."""
    text = json.dumps(_header(repaint)).encode()
    head = torch.frombuffer(bytearray(len(text).to_bytes(LENGTH_BYTES, 'little') + text), dtype=torch.uint8)
    device = repaint.mean.device
    parts = [head.to(device), _bytes(_counters(repaint)).to(device), _bytes(_scalers(repaint)).to(device)]
    return torch.cat([*parts, *(_bytes(tensor) for tensor in _guarded(repaint))])


def unpack_state(repaint: 'Repaint', state: Any) -> None:
    """Take a packed state, whatever device it is on.

    Raises:
        UsageError: if it is none, or of other networks.
    """
    header, content = _read(state)
    check_settings(repaint, state)
    for name, (ours, theirs) in _differences(_header(repaint)['settings'], header['settings']).items():
        _logger.warning('The state was saved with %s %s; it goes on with %s.', name, theirs, ours)
    counters, scalers = _counters(repaint), _scalers(repaint)
    for own in (counters, scalers):
        content = _take(own, content, own.dtype)
    repaint.updates, repaint.stopped = int(counters[0]), bool(counters[1])
    for optimizer, (scale, growth) in zip(repaint.optimizers.values(), scalers.tolist(), strict=False):
        _set_scaler(optimizer, scale, int(growth))
    dtype = getattr(torch, header['moments'])
    if not header['learns']:
        return
    for tensor in _guarded(repaint):
        content = _take(tensor, content, dtype if tensor.is_floating_point() and tensor.ndim else tensor.dtype)
    for guard in _guards(repaint):
        guard.restored()


def check_settings(repaint: 'Repaint', state: Any) -> None:
    """Stop at a state of other networks; None passes.

    Raises:
        UsageError: naming what differs.
    """
    if state is None:
        return
    theirs = _read(state)[0]['networks']
    differ = _differences(repaint.repainter.config, theirs)
    if differ:
        told = '; '.join(f'{name} is {there}, here {here}' for name, (here, there) in differ.items())
        raise UsageError(f'the generator in the checkpoint is another one: {told}; use its settings')


def read_header(state: Any) -> dict[str, Any]:
    """Of a packed state: 'networks', the keyword arguments of E and G or of a painter; 'settings'; 'learns'.

    Raises:
        UsageError: if it is none.
    """
    return _read(state)[0]


@torch.no_grad()
def send_from_first(repaint: 'Repaint') -> None:
    """Give all processes the first one's weights and state."""
    if not is_distributed():
        return
    tensors = [*repaint.repainter.state_dict().values()]
    if repaint.discriminator is not None:
        tensors += repaint.discriminator.state_dict().values()
    state = pack_state(repaint)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # a set's order differs between processes
        own = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in own])
        torch.distributed.broadcast(flat, 0)
        for tensor, part in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
            tensor.copy_(part.view(tensor.shape))
    torch.distributed.broadcast(state, 0)
    unpack_state(repaint, state)


def _header(repaint: 'Repaint') -> dict[str, Any]:
    names = [field.name for field in fields(RepaintConfig) if field.name not in NO_SETTINGS]
    moments = next(iter(repaint.repainter.parameters()), repaint.mean).dtype
    return {
        'format': FORMAT,
        'networks': repaint.repainter.config,
        'settings': json.loads(json.dumps({name: getattr(repaint.config, name) for name in names})),
        'moments': str(moments).removeprefix('torch.'),
        'learns': bool(repaint.optimizers),
    }


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (ours[name], theirs.get(name)) for name in ours if theirs.get(name) != ours[name]}


def _read(state: Any) -> tuple[dict[str, Any], Tensor]:
    """The header, and the bytes behind it, on the CPU."""
    try:
        content = state.detach().cpu()
        length = int.from_bytes(content[:LENGTH_BYTES].numpy().tobytes(), 'little')
        header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length].numpy().tobytes())
        if header['format'] != FORMAT or not isinstance(header['networks'], dict):
            raise ValueError(f'format {header["format"]}')
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise UsageError(
            f'this is not the state of a Repaint ({error}); load what repaint.state_dict() gave'
        ) from error
    return header, content[LENGTH_BYTES + length :]


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _take(tensor: Tensor, content: Tensor, dtype: torch.dtype) -> Tensor:
    """Fill a tensor from the first bytes, values of `dtype`; the bytes behind them."""
    length = tensor.numel() * dtype.itemsize
    if len(content) < length:
        raise UsageError('the state of the Repaint is cut off; load another checkpoint')
    values = content[:length].clone().view(dtype)
    with torch.no_grad():
        tensor.copy_(values.view(tensor.shape))
    return content[length:]


def _counters(repaint: 'Repaint') -> Tensor:
    return torch.tensor([repaint.updates, int(repaint.stopped)])


def _scalers(repaint: 'Repaint') -> Tensor:
    """Scale and growth of the gradient scalers of E+G and D, [2, 2] float64; 0 where there is none yet."""
    values = torch.zeros(2, 2, dtype=torch.float64)
    for row, optimizer in zip(values, repaint.optimizers.values(), strict=False):
        if optimizer.scaler is not None:
            state = optimizer.scaler.state_dict()
            row[0], row[1] = state['scale'], state['_growth_tracker']
    return values


def _set_scaler(optimizer: GanOptimizer, scale: float, growth: int) -> None:
    optimizer.scaler = None
    if scale > 0:
        optimizer.scaler = torch.amp.GradScaler(optimizer.parameters[0].device.type)
        own = optimizer.scaler.state_dict()
        optimizer.scaler.load_state_dict({**own, 'scale': scale, '_growth_tracker': growth})


def _guarded(repaint: 'Repaint') -> list[Tensor]:
    """Counts of skipped updates and Adam's tensors, on the networks' device."""
    moments = [tensor for optimizer in repaint.optimizers.values() for tensor in optimizer.tensors]
    return [*(guard.counts for guard in _guards(repaint)), *moments]


def _guards(repaint: 'Repaint') -> list[Guard]:
    return [repaint._task_guard, *(optimizer.guard for optimizer in repaint.optimizers.values())]
