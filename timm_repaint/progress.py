"""A progress bar on one line of a terminal; in a log file a line every tenth of the way."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

Item = TypeVar('Item')
BAR_WIDTH = 30


def progress(
    items: Iterable[Item], label: str, total: int | None = None, stream: TextIO = sys.stderr
) -> Iterator[Item]:
    """Pass `items` on and show how many are done and how long the rest will take.

    Args:
        items: What to go through.
        label: Word in front of the bar.
        total: Number of items, if they do not know it themselves.
    """
    if total is None:
        assert isinstance(items, Sized)
        total = len(items)
    start, shown = time.monotonic(), -1
    for done, item in enumerate(items):
        shown = _show(label, done, total, start, shown, stream)
        yield item
    _show(label, total, total, start, shown, stream)


def _show(label: str, done: int, total: int, start: float, shown: int, stream: TextIO) -> int:
    """Draw if there is something new to see; returns the step that is on show."""
    terminal = stream.isatty()
    step = (200 if terminal else 10) * done // max(1, total)
    if step == shown:
        return shown
    elapsed = time.monotonic() - start
    left = elapsed / done * (total - done) if done else float('nan')
    bar = '#' * (BAR_WIDTH * done // max(1, total))
    text = f'{label} [{bar:<{BAR_WIDTH}}] {done}/{total}' + (f', {left:.0f} s left' if 0 < done < total else '')
    end = '\n' if not terminal or done == total else ''
    stream.write(f'\r{text:<79}{end}' if terminal else f'{text}{end}')
    stream.flush()
    return step
