"""The options in `train_options.yaml`: on a command line, the ranges of their numbers, and words without `choices`.

Outside of these timm's script ends with a traceback, trains nothing, or does as if there were another.
"""

import copy
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from timm.utils import ParseKwargs

from timm_repaint.option import ABOVE_ZERO, ONE_OR_MORE, ZERO_OR_MORE, Limit

TABLE = Path(__file__).with_name('train_options.yaml')
KINDS: dict[str, dict[str, Any]] = {
    **{kind.__name__: {'type': kind} for kind in (int, float, str)},
    **{'text': {}, 'flag': {'action': 'store_true'}},
    'kwargs': {'nargs': '*', 'default': {}, 'action': ParseKwargs},
}
OURS = ('limit', 'words', 'needs', 'scheds', 'roles')  # what argparse does not know
DETECTION = 'Detection'  # the group that detectors alone have
# Of numbers, by their words in the table.
LIMITS = {
    'count': ONE_OR_MORE,
    'whole': Limit(lambda value: value >= 0, '0 or more'),
    'not_one': Limit(lambda value: value == 0 or value >= 2, '0, or 2 or more'),
    'above_zero': ABOVE_ZERO,
    'zero_or_more': ZERO_OR_MORE,
    'above_zero_to_one': Limit(lambda value: 0 < value <= 1, 'above 0 and at most 1'),
    'share': Limit(lambda value: 0 <= value <= 1, 'from 0 to 1'),
    'below_one': Limit(lambda value: 0 <= value < 1, '0 or more and below 1'),
    'finite': Limit(math.isfinite, 'a finite number'),
    'seed': Limit(lambda value: 0 <= value < 2**32 - 2**16, 'from 0 to 4294901759'),
}


@cache
def read_table() -> dict[str, dict[str, dict[str, Any]]]:
    """By group, by flags: the entry."""
    return yaml.safe_load(TABLE.read_text(encoding='utf-8'))


def add_table(parser: ArgumentParser, detection: bool = False) -> None:
    """Add all groups but the detectors' own, or that one alone."""
    for title, entries in read_table().items():
        if (title == DETECTION) == detection:
            add = parser.add_argument_group(title).add_argument
            for flags, entry in entries.items():
                add(*flags.split(), **_settings(entry))


def _settings(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry's keyword arguments for argparse."""
    settings = {name: value for name, value in copy.deepcopy(entry).items() if name not in OURS}
    (kind,) = settings.keys() & KINDS
    settings |= {'help': settings.pop(kind), **copy.deepcopy(KINDS[kind])}
    if isinstance(settings.get('metavar'), list):  # argparse wants one of several values as a tuple
        settings['metavar'] = tuple(settings['metavar'])
    return settings


@cache
def by_name() -> dict[str, dict[str, Any]]:
    """The entry of each option, by the name of its value."""
    entries = {}
    for group in read_table().values():
        for flags, entry in group.items():
            long = next((flag for flag in flags.split() if flag.startswith('--')), flags)
            entries[long.lstrip('-').replace('-', '_')] = entry
    return entries


def check_numbers(args: Namespace) -> Iterator[str]:
    """A sentence for each number that is out of its range; options that are not set are not looked at."""
    for name, entry in by_name().items():
        value = getattr(args, name, None)
        limit = LIMITS.get(entry.get('limit', ''))
        numbers: Any = value if isinstance(value, (list, tuple)) else [value]
        for one in numbers:
            number = isinstance(one, (int, float)) and not isinstance(one, bool)
            if limit is not None and number and not limit.holds(one):
                yield f'--{name.replace("_", "-")} is {one}; it must be {limit.wanted}'


def check_words(args: Namespace) -> Iterator[str]:
    """A sentence for each word that is none of those of its option."""
    for name, entry in by_name().items():
        words, value = entry.get('words'), vars(args).get(name)
        if words and value is not None and value not in words:
            yield f'--{name.replace("_", "-")} is {value!r}; choose one of {", ".join(map(repr, words))}'
