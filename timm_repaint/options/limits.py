"""The ranges of timm's numbers, and the words of its options that have no `choices`.

Outside of them its script ends with a traceback, trains nothing, or does as if there were another.
"""

import argparse
import math
from collections.abc import Iterator
from typing import Any

from timm_repaint.option import ABOVE_ZERO, ONE_OR_MORE, ZERO_OR_MORE, Limit
from timm_repaint.options.option_table import by_name

# By their words in the table.
LIMITS = {
    'count': ONE_OR_MORE,
    'whole': Limit(lambda value: value >= 0, '0 or more'),
    'not_one': Limit(lambda value: value == 0 or value >= 2, '0, or 2 or more'),
    'above_zero': ABOVE_ZERO,
    'zero_or_more': ZERO_OR_MORE,
    'share': Limit(lambda value: 0 <= value <= 1, 'from 0 to 1'),
    'below_one': Limit(lambda value: 0 <= value < 1, '0 or more and below 1'),
    'finite': Limit(math.isfinite, 'a finite number'),
    'seed': Limit(lambda value: 0 <= value < 2**32 - 2**16, 'from 0 to 4294901759'),
}


def check_numbers(args: argparse.Namespace) -> Iterator[str]:
    """A sentence for each number that is out of its range; options that are not set are not looked at."""
    for name, entry in by_name().items():
        value = getattr(args, name, None)
        limit = LIMITS.get(entry.get('limit', ''))
        numbers: Any = value if isinstance(value, (list, tuple)) else [value]
        for one in numbers:
            number = isinstance(one, (int, float)) and not isinstance(one, bool)
            if limit is not None and number and not limit.holds(one):
                yield f'--{name.replace("_", "-")} is {one}; it must be {limit.wanted}'


def check_words(args: argparse.Namespace) -> Iterator[str]:
    """A sentence for each word that is none of those of its option."""
    for name, entry in by_name().items():
        words = entry.get('words')
        if words and getattr(args, name) not in words:
            yield f'--{name.replace("_", "-")} is {getattr(args, name)!r}; choose one of {", ".join(map(repr, words))}'
