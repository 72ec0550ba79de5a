"""YAML files of options: `-c FILE` gives defaults, checked as if they stood on the command line.

A saved `args.yaml` is such a file, so a run can be repeated with `train.py -c output/train/<experiment>/args.yaml`.
A file may stand on others: see bases.py.
"""

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import yaml
from timm.utils import ParseKwargs

from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.options.bases import describe, drop_removed, read_files
from timm_repaint.options.run_file import STARTED_FROM
from timm_repaint.recipes import find_recipe

# timm's transforms read None here as 'no colour jitter at all'; elsewhere null is the option's default.
_NULL_IS_A_VALUE = frozenset({'color_jitter'})

_TYPE_NAMES: dict[Any, str] = {int: 'an integer', float: 'a number', str: 'a text'}


def parse_args(
    parser: argparse.ArgumentParser, config_parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, str]:
    """Reads the command line over the YAML file, or the recipe of the package, that it names, if any.

    Args:
        parser: parser of all options; left as it is.
        config_parser: parser of `-c/--config` alone.
        argv: command line without the program's name; None: that of the process.

    Returns:
        The options, and the same as YAML text for `args.yaml`.

    Raises:
        SystemExit: with status 2, if the file cannot be read or a value does not fit its option.
    """
    config_args, remaining = config_parser.parse_known_args(argv)
    if config_args.config:
        parser = with_file(parser, config_args.config)
    args = parser.parse_args(remaining)
    return args, yaml.safe_dump(args.__dict__, default_flow_style=False)


def with_file(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """A copy of the parser whose defaults are those of a YAML file, or of a recipe by its name."""
    try:
        path = find_recipe(name)
    except UsageError as error:
        parser.error(f'argument -c/--config: {error}')
    defaults = load_config(parser, path)
    parser = copy.deepcopy(parser)  # the caller may parse again without this file
    parser.set_defaults(**defaults)
    return parser


def load_config(parser: argparse.ArgumentParser, path: str) -> dict[str, Any]:
    """Reads a YAML mapping of options over those of its bases, as defaults for the parser.

    Keys are an option's names, long or short, with dashes or underscores. `config` is left out in silence. Other
    unknown keys stop files that say `repaint: true`; in any other they are named in a warning and left out, as files
    of timm's script may have options of other versions. What does not fit stops with `parser.error` and its file.

    Returns:
        Value by dest, of the type that the command line would give.
    """
    actions = _actions_by_name(parser)
    defaults: dict[str, Any] = {}
    unknown: dict[Any, str] = {}
    try:
        files = [(file, drop_removed(own, file)) for file, own in read_files(path)]
    except UsageError as error:
        parser.error(f'argument -c/--config: {error}')
    for file, own in files:
        seen = set()
        for key, value in own.items():
            action = actions.get(_name(key))
            if action is None:
                unknown[key] = file
                continue
            if action.dest in seen:
                parser.error(f'{argparse.ArgumentError(action, f"{file} sets it twice")}')
            seen.add(action.dest)
            try:
                defaults[action.dest] = _convert(action, value)
            except ValueError as error:
                parser.error(f'{argparse.ArgumentError(action, f"{error} (in {file})")}')
    unknown = {key: file for key, file in unknown.items() if _name(key) not in ('config', STARTED_FROM)}
    if unknown and defaults.get('repaint'):  # a file of ours: a wrong name would cost a whole training
        first = next(iter(unknown.values()))
        names = ', '.join(str(key) for key, file in unknown.items() if file == first)
        parser.error(f'argument -c/--config: {first} names {names}, but no option is called so')
    if unknown:
        logger.warning('%s: unknown options are ignored: %s', path, ', '.join(map(str, unknown)))
    return defaults


def convert_values(parser: argparse.ArgumentParser, options: dict[str, Any], path: str) -> dict[str, Any]:
    """The options of a run, of the types that the command line would give; names that are none stay as they are.

    Raises:
        UsageError: if a value cannot be one of its option's.
    """
    actions = _actions_by_name(parser)
    converted = dict(options)
    for name in options.keys() & actions.keys():
        try:
            converted[name] = _convert(actions[name], options[name])
        except ValueError as error:
            raise UsageError(f'{path}: {name} {error}') from error
    return converted


def _name(key: Any) -> str:
    """A key as dests are written."""
    return str(key).lstrip('-').replace('-', '_')


def _actions_by_name(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Every option that has a value, by its dest and by each of its flags without dashes in front."""
    actions = {}
    for action in parser._actions:
        if action.default is argparse.SUPPRESS:  # --help, --config
            continue
        for name in (action.dest, *action.option_strings):
            actions[_name(name)] = action
    return actions


def _convert(action: argparse.Action, value: Any) -> Any:
    """Gives the value as the command line would, or raises ValueError with what was wanted."""
    if value is None:
        return None if action.dest in _NULL_IS_A_VALUE else copy.deepcopy(action.default)
    if isinstance(action, ParseKwargs):
        if not isinstance(value, dict):
            raise ValueError(f'wants a mapping of names to values, not {describe(value)}')
        return value
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f'wants true or false, not {describe(value)}')
        return value
    if action.nargs in ('+', '*') or isinstance(action.nargs, int):
        return _convert_list(action, value)
    if action.nargs == '?' and action.const is not None and isinstance(value, bool):
        return action.const if value else action.default  # the bare flag
    return _convert_scalar(action, value)


def _convert_list(action: argparse.Action, value: Any) -> list[Any]:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if isinstance(action.nargs, int) and len(items) != action.nargs:
        raise ValueError(f'wants {action.nargs} values, not {describe(value)}')
    if not items and action.nargs == '+' and action.default != []:
        raise ValueError('wants at least one value, not an empty list')
    return [_convert_scalar(action, item) for item in items]


def _convert_scalar(action: argparse.Action, value: Any) -> Any:
    wanted: Any = action.type or str
    fits = isinstance(value, (str, int) if wanted is int else (str, int, float)) and not isinstance(value, bool)
    try:
        # An integer stays one where a number is wanted, as in the parser's own defaults, so args.yaml reads back alike.
        converted = value if wanted is float and isinstance(value, int) else wanted(value)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f'wants {_TYPE_NAMES[wanted]}, not {describe(value)}')
    if action.choices is not None and converted not in action.choices:
        raise ValueError(f'{converted!r} is no choice; choose from {", ".join(map(repr, action.choices))}')
    return converted
