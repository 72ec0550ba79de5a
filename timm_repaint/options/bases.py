"""YAML files that stand on others: what a file says, and what the files say that its line `base` names.

base: ../base.yaml            # a path from the folder of this file; or a list: [first.yaml, second.yaml]
lr: 0.1                       # comes before the base's
"""

import os
import reprlib
from typing import Any

import yaml

from timm_repaint.errors import UsageError
from timm_repaint.log import logger

BASE = 'base'
MAX_BYTES = 2**18
# Options that went away, and their defaults: files of earlier versions may still have them; no result needed them,
# and the paper does not have them.
REMOVED = {'repaint_split_bn': False, 'repaint_rec_weight': 0.0, 'mask_multi_scale': False}

Options = dict[Any, Any]
_short = reprlib.Repr()  # YAML's aliases make a few lines a list without end
_short.maxlevel, _short.maxlist, _short.maxstring, _short.maxother = 2, 8, 200, 200


def read_files(path: str, above: tuple[str, ...] = ()) -> list[tuple[str, Options]]:
    """What a file and its bases say, each itself, without `base`: what comes later counts.

    Args:
        path: The file.
        above: The files that led here, each standing on the next.

    Returns:
        Each file with its options: the bases in their order, each behind its own ones, and last the file.

    Raises:
        UsageError: if one cannot be read, is no mapping, or stands on itself.
    """
    if os.path.realpath(path) in map(os.path.realpath, above):
        circle = ' > '.join([*above, path])
        raise UsageError(f'{path} is a base of itself ({circle}); take the line "{BASE}" out of one of them')
    role = f' (base of {above[-1]})' if above else ''
    advice = f'; the path of a {BASE} counts from the folder of the file that names it' if above else ''
    own = load_yaml(path, role, advice)
    if not isinstance(own, dict):
        raise UsageError(f'{path}{role} must hold lines of "option: value", but is {describe(own)}')
    files: list[tuple[str, Options]] = []
    for base in _names(own.pop(BASE, []), path):
        files += read_files(os.path.normpath(os.path.join(os.path.dirname(path), base)), (*above, path))
    return [*files, (path, own)]


def load_yaml(path: str, role: str = '', advice: str = '') -> Any:
    """What a YAML file holds, in plain values.

    Args:
        path: The file.
        role: What it is, behind its name in messages.
        advice: The end of the message where it cannot be read.

    Raises:
        UsageError: if it cannot be read, is larger than any file of options, or is not YAML.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UsageError(f'{path}{role} is no file of options: it has more than {MAX_BYTES} bytes')
        return yaml.safe_load(content)
    except OSError as error:
        raise UsageError(f'cannot read {path}{role}: {error.strerror}{advice}') from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # a date that there is not, deep lists
        raise UsageError(f'{path}{role} is not YAML: {" ".join(str(error).split())}') from None


def _names(value: Any, path: str) -> list[str]:
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise UsageError(f'{BASE} wants the path of a YAML file, or a list of such, not {describe(value)} (in {path})')
    return names


def describe(value: Any) -> str:
    """Names a YAML value as its author sees it: true, [1, 2], 'text', an empty file."""
    if value is None:
        return 'empty'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f'a mapping ({", ".join(map(str, value)) or "empty"})'
    return _short.repr(value)


def drop_removed(options: Options, path: object) -> Options:
    """The options of a file, by names with dashes or underscores, without those that went away.

    Raises:
        UsageError: if one of them has another value than its default, so that the run would be another one.
    """
    names = {str(name).lstrip('-').replace('-', '_'): name for name in options}
    old = [name for name in REMOVED if name in names]
    for name in old:
        value = options[names[name]]
        if value not in (None, REMOVED[name]):
            raise UsageError(f'{path} has {name}: {value}, an option that went away; use version 0.1, or leave it out')
    if old:
        logger.info('%s has options that went away, at their defaults: %s.', path, ', '.join(old))
    return {name: value for key, name in names.items() if key not in old for value in [options[name]]}
