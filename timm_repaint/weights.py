"""Files of weights that nobody has to trust, as only tensors and plain values are loaded; and networks from them."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from timm_repaint.errors import UsageError, first_of

StateDict = dict[str, Tensor]


def unreadable(path: str, error: Exception) -> UsageError:
    """What to say of a file that torch cannot read as a checkpoint, or will not because it holds pickled objects."""
    if isinstance(error, RuntimeError):
        return UsageError(f'{path} is not a checkpoint: {str(error).splitlines()[0]}')
    return UsageError(
        f'{path} is not a checkpoint of tensors and plain values; nothing else is loaded, because it could run code'
    )


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """What a file holds: tensors and plain values, on the CPU.

    Raises:
        UsageError: if it is missing, damaged, or holds anything else.
    """
    path = os.fspath(path)
    try:
        if path.endswith('.safetensors'):
            return load_file(path)
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except OSError as error:
        raise UsageError(f'{path}: {error.strerror}; name a checkpoint') from error
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise unreadable(path, error) from error


def read_state_dict(path: str) -> StateDict:
    """A file's tensors by key: see `read_checkpoint` and `state_dict_of`."""
    return state_dict_of(read_checkpoint(path), path)


def state_dict_of(content: Any, path: str, names: Sequence[str] = ('state_dict', 'model')) -> StateDict:
    """A checkpoint's tensors by key, without a wrapper's `module.`: of its top, or under one of some names.

    Args:
        content: See `read_checkpoint`.
        path: Its file, for messages.
        names: The first of them that is there counts.

    Raises:
        UsageError: if there are none.
    """
    for name in names:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        places = ' or '.join(map(repr, names))
        raise UsageError(f'{path} holds no tensors by name, neither at the top nor in {places}')
    prefix = 'module.' if all(str(key).startswith('module.') for key in content) else ''
    return {str(key).removeprefix(prefix): value for key, value in content.items() if isinstance(value, Tensor)}


def fill(net: nn.Module, state: StateDict, path: str, kind: str) -> None:
    """Put a state's tensors in place of a network's, which may be on 'meta', in float32.

    Args:
        net: The network.
        state: Of exactly its layers.
        path: Its file, for messages.
        kind: What the network is, for messages.

    Raises:
        UsageError: if they differ, with the first keys that do.
    """
    wanted = net.state_dict()
    for key in wanted:
        if key.endswith('.num_batches_tracked'):  # unused in evaluation, absent from old files
            state.setdefault(key, torch.tensor(0))
    differences = {
        'missing': [key for key in wanted if key not in state],
        'unexpected': [key for key in state if key not in wanted],
        'of another shape': [
            f'{key} {list(state[key].shape)} instead of {list(tensor.shape)}'
            for key, tensor in wanted.items()
            if key in state and state[key].shape != tensor.shape
        ],
    }
    told = [f'{name} {first_of(keys, 3)}' for name, keys in differences.items() if keys]
    if told:
        raise UsageError(f'{path} is not {kind}: {"; ".join(told)}')
    net.load_state_dict(state, assign=True)
    net.float()
