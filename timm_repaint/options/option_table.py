"""The options in `train_options.yaml`, on a command line."""

import argparse
import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from timm.utils import ParseKwargs

TABLE = Path(__file__).with_name('train_options.yaml')
KINDS: dict[str, dict[str, Any]] = {
    'int': {'type': int},
    'float': {'type': float},
    'str': {'type': str},
    'text': {},
    'flag': {'action': 'store_true'},
    'kwargs': {'nargs': '*', 'default': {}, 'action': ParseKwargs},
}
OURS = ('limit', 'words', 'needs', 'scheds', 'roles')  # what argparse does not know
DETECTION = 'Detection'  # the group that detectors alone have


@cache
def read_table() -> dict[str, dict[str, dict[str, Any]]]:
    """By group, by flags: the entry."""
    return yaml.safe_load(TABLE.read_text(encoding='utf-8'))


def add_table(parser: argparse.ArgumentParser, detection: bool = False) -> None:
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
