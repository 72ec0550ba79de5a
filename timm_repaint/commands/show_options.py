"""`timm-repaint options`: repaint's options with their defaults and the paper's values, and what a recipe makes of any.

timm-repaint options                          # the list
timm-repaint options -c paper                 # beside it what a recipe says
timm-repaint options -c paper --get mask      # one value, for shell scripts; nothing where it is unset
timm-repaint options -c paper --get mask lr   # or several, a line each
timm-repaint options -c paper --where         # the recipe's file
"""

from argparse import ArgumentParser
from typing import Any

import yaml

from timm_repaint.detection.options import build_parser as build_detection_parser
from timm_repaint.errors import UsageError
from timm_repaint.option import Option, options_of
from timm_repaint.options import build_parser
from timm_repaint.options.bases import read_files
from timm_repaint.options.option_files import with_file
from timm_repaint.options.repaint_options import CONFIGS
from timm_repaint.options.run_file import is_detection
from timm_repaint.recipes import find_recipe


def main() -> int:
    """Print what is asked for; returns the process's exit status."""
    parser = ArgumentParser(
        prog='timm-repaint options',
        description="Repaint's options, each with its default and the paper's value; or one value of a recipe.",
    )
    add = parser.add_argument
    add('-c', '--config', default='', metavar='FILE', help='YAML file, or a recipe of the package by name')
    text = 'print the value of this option, of Repaint or of timm, and nothing else; of several, a line each'
    add('--get', nargs='+', default=[], metavar='NAME', help=text)
    add('--where', action='store_true', help='print the path of the file that -c means, and nothing else')
    args = parser.parse_args()
    if args.where and not args.config:
        parser.error('--where needs -c NAME')
    if args.where:
        print(find_recipe(args.config))
        return 0
    resolved = resolve(args.config)
    values = [show(value_of(resolved, name)) for name in args.get]
    print('\n'.join(values) if args.get else table(resolved, bool(args.config)))
    return 0


def resolve(config: str) -> ArgumentParser:
    """The training's parser with a recipe's values as defaults; the detector's, if the recipe is one of a detector."""
    parser = build_parser()
    if not config:
        return parser
    if is_detection({name: value for _, own in read_files(find_recipe(config)) for name, value in own.items()}):
        parser = build_detection_parser()
    return with_file(parser, config)


def value_of(parser: ArgumentParser, name: str) -> Any:
    """The default of an option, by its flag or name with dashes or underscores; `task` is the kind of training.

    Raises:
        UsageError: if there is no such option.
    """
    values = {'task': 'classification', **vars(parser.parse_args([]))}  # the detector's parser has it
    dest = name.lstrip('-').replace('-', '_')
    if dest not in values:
        raise UsageError(f'no option is called {name}; timm-repaint train --help lists them')
    return values[dest]


def show(value: Any) -> str:
    """A value as a shell script wants it: true, false, nothing for an unset one, a list with spaces between."""
    if value is None:
        return ''
    if isinstance(value, (list, tuple)):
        return ' '.join(map(show, value))
    if isinstance(value, (bool, dict)):
        return str(yaml.safe_dump(value, default_flow_style=True, width=float('inf'))).removesuffix('...\n').strip()
    return str(value)


def table(parser: ArgumentParser, has_recipe: bool) -> str:
    """A line an option: default, the recipe's value, the paper's."""
    defaults = build_parser()
    rows = [('option', 'default', *(['recipe'] if has_recipe else []), 'paper')]
    for flag, one in repaint_options():
        recipe = [show(value_of(parser, flag))] if has_recipe else []
        rows.append((flag, show(value_of(defaults, flag)), *recipe, one.paper))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def repaint_options() -> list[tuple[str, Option]]:
    """Repaint's options as flags, group by group."""
    shown = [(f'{prefix}{name}', one) for config, prefix in CONFIGS for name, one in options_of(config).items()]
    groups = dict.fromkeys(one.group for _, one in shown if one.group)
    return [('--' + name.replace('_', '-'), one) for group in groups for name, one in shown if one.group == group]
