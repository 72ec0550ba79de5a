"""tqdm's bar in a terminal; in a log file a line of its words every tenth of the way."""

import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar('Item')


def progress(
    items: Iterable[Item], label: str, total: int | None = None, stream: TextIO = sys.stderr
) -> Iterator[Item]:
    """Pass `items` on and show how many are done and how long the rest will take; `total` if they have no length."""
    if stream.isatty():
        yield from tqdm(items, label, total, file=stream)
        return
    count = len(items) if isinstance(items, Collection) else total or 0
    start, shown = time.monotonic(), -1

    def show(done: int) -> int:
        tenth = 10 * done // max(1, count)
        if tenth > shown:
            elapsed_s = time.monotonic() - start
            print(tqdm.format_meter(done, count, elapsed_s, prefix=label, ascii=True), file=stream, flush=True)
        return tenth

    shown = show(0)
    for done, item in enumerate(items, start=1):
        yield item
        shown = show(done)
