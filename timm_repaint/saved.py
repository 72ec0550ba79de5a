"""E and G from a file: of `train.py --repaint`, of one's own loop, or the one that comes along.

Nothing but tensors and plain values is loaded.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from timm_repaint.config import DEFAULTS
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.packed import read_header
from timm_repaint.painters import PAINTERS, AnyRepainter, create_repainter
from timm_repaint.weights import read_checkpoint

STATE_KEY = '_extra_state'
PRETRAINED = 'pretrained'  # the name of the generator in the package; docs/pretrained.md
PRETRAINED_FILE = Path(__file__).with_name('pretrained.safetensors')


def load_repainter(path: str | os.PathLike[str]) -> AnyRepainter:
    """E and G, or the painter, of a trained run.

    Args:
        path: A checkpoint of `train.py --repaint`, or any file of torch's or safetensors' with the state of a
            `Repaint` in it: by itself, in a module's state, or under any name; 'repaint', 'task_state', 'state_dict'
            and 'model' come first.
            'pretrained': the one that comes with the package.

    Raises:
        UsageError: if the file cannot be read, or has no generator.
    """
    content = read_checkpoint(str(PRETRAINED_FILE) if path == PRETRAINED else path)
    inside = content if isinstance(content, Mapping) else {}
    first = [inside.get(name) for name in ('repaint', 'task_state', 'state_dict', 'model')]
    for state in (*first, content, *inside.values()):
        found = _find_state(state) if isinstance(state, Mapping) else None
        if found is not None:
            return _build(path, read_header(found[STATE_KEY]).get('networks'), _without(found, 'repainter.'))
    raise UsageError(f'{path} has no generator: it is not a checkpoint of train.py --repaint, from version 0.2 on')


def _build(path: str | os.PathLike[str], config: Any, state: dict[str, Any]) -> AnyRepainter:
    """E and G of a file; their sizes are compared before they take memory."""
    try:
        with torch.device('meta'):
            wanted = {name: tensor.shape for name, tensor in create_repainter(config).state_dict().items()}
        if wanted != {name: tensor.shape for name, tensor in state.items()}:
            raise ValueError('its weights are of other networks than those of its settings here')
        repainter = create_repainter(config)
        repainter.load_state_dict(state)
    except Exception as error:  # values of any kind may stand there
        raise UsageError(f'the generator in {path} is damaged: {type(error).__name__}: {error}') from error
    return repainter


def _find_state(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of a module's state that is a `Repaint`'s, without what is ahead of its names."""
    for key in state:
        if not str(key).endswith(STATE_KEY):
            continue
        try:
            read_header(state[key])
        except UsageError:  # another module's
            continue
        return _without(state, str(key).removesuffix(STATE_KEY))
    return None


def _without(state: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    """Those whose names have something ahead, without it."""
    return {str(name).removeprefix(prefix): value for name, value in state.items() if str(name).startswith(prefix)}


def load_networks(path: str | os.PathLike[str], wanted: dict[str, Any]) -> AnyRepainter:
    """E and G of a checkpoint, after a look at whether they are what was asked for.

    Args:
        path: As of `load_repainter`.
        wanted: Settings of E and G; those at their defaults are taken from the checkpoint, but for 'num_labels'. The
            temperature, which shapes no layer, is taken from here otherwise.

    Raises:
        UsageError: naming the settings that differ.
    """
    repainter = load_repainter(path)
    theirs = repainter.config
    asked = {name: value for name, value in wanted.items() if name == 'num_labels' or value != DEFAULTS[name]}
    differ = [
        f'{name} is {theirs.get(name)} there, {value} here'
        for name, value in asked.items()
        if theirs.get(name) != value and name != 'temperature'
    ]
    if differ:
        raise UsageError(
            f'{path} holds another generator: {"; ".join(differ)} (num_labels None: segments); leave that out'
        )
    if theirs['generator'] in PAINTERS:
        raise UsageError(f'{path} holds no network: --repaint-generator {theirs["generator"]} needs no checkpoint')
    if 'temperature' in asked:
        repainter.temperature = theirs['temperature'] = asked['temperature']
    taken = [f'{name} {theirs[name]}' for name, value in wanted.items() if value not in (None, theirs.get(name))]
    if taken:
        logger.warning('E and G are those of %s: %s.', path, ', '.join(taken))
    return repainter
