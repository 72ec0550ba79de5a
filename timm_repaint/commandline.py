"""What the commands share: values of options, and how they end."""

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

from timm_repaint.errors import INTERRUPTED

Params = ParamSpec('Params')


def at_least(lowest: int) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from `lowest` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is no whole number') from None
        if value < lowest:
            raise argparse.ArgumentTypeError(f'{text} is below {lowest}')
        return value

    return parse


def shard(text: str) -> tuple[int, int]:
    """The type of an option that takes 'I/N', the I-th of N parts."""
    try:
        index, count = map(int, text.split('/'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not I/N, such as 3/16') from None
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f'shard {text} does not exist; shards are 1/{count} to {count}/{count}')
    return index, count


def num_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def goes_on(main: Callable[Params, int]) -> Callable[Params, int]:
    """A command that goes on where it stopped: Ctrl-C, or SLURM's SIGTERM, end it with a line that says so."""

    @functools.wraps(main)
    def wrapped(*args: Params.args, **kwargs: Params.kwargs) -> int:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            print('\ninterrupted; the same command goes on from here', file=sys.stderr)
            return INTERRUPTED

    return wrapped
