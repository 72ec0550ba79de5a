"""The parser of train.py: timm's options by section, then ours."""

import argparse
from difflib import get_close_matches
from typing import Any, NoReturn

from timm_repaint.option import add_options
from timm_repaint.options.option_table import add_table
from timm_repaint.options.repaint_options import CONFIGS

NAMED = 3  # options of many that a shortened one could be


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows an option's default unless it is nothing: None, an empty text, list or mapping, or a flag that is off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default in ('', [], {}):
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line: the usage of so many options would be a hundred more."""

    def error(self, message: str) -> NoReturn:
        said, could_match, names = message.partition(' could match ')
        if could_match and names.count(', ') >= NAMED:
            message = f'{said}{could_match}{", ".join(names.split(", ")[:NAMED])} and more; write it out'
        self.exit(2, f'{self.prog}: error: {message}\n')

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; an option that is not known is told with the ones most like it."""
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            words = [word.partition('=')[0] for word in unknown if word.startswith('--')]
            similar = [name for word in words for name in get_close_matches(word, self._option_string_actions, n=1)]
            hint = f'; did you mean {", ".join(similar)}?' if similar else ''
            self.error(f'unrecognized arguments: {" ".join(unknown)}{hint}')
        return namespace


def build_config_parser() -> argparse.ArgumentParser:
    """Builds the parser that takes `-c/--config` off the command line, ahead of the parser of everything else."""
    parser = _Parser(description='Configuration file', add_help=False)
    _add_config_option(parser, default='')
    return parser


def build_parser(run_dir: bool = False) -> argparse.ArgumentParser:
    """Builds the parser of every option of timm's training script and of Repaint.

    Args:
        run_dir: whether the folder of an earlier run comes first on the command line (`fine_tune.py`).
    """
    parser = _Parser(
        description='Train a timm classifier; with --repaint, on repaints of its images.',
        formatter_class=_HelpFormatter,
    )
    if run_dir:
        parser.add_argument('run_dir', metavar='RUN_DIR', help='output folder of a train.py --repaint run')
    # Only for --help: the config parser has taken it away, and it must not appear in args.yaml.
    _add_config_option(parser, default=argparse.SUPPRESS)
    add_table(parser)
    for config_class, prefix in CONFIGS:
        add_options(parser, config_class, prefix)
    return parser


def _add_config_option(parser: argparse.ArgumentParser, default: str) -> None:
    text = 'YAML file of option: value lines, or a recipe of the package by name, such as robust or demo; its line '
    text += '"base: FILE" puts it over another file; what the command line says comes first'
    parser.add_argument('-c', '--config', type=str, default=default, metavar='FILE', help=text)
