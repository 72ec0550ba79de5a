"""A function over many items in worker processes, with a bounded number of results in flight."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from timm_repaint.errors import UsageError

Item = TypeVar('Item')
Result = TypeVar('Result')
CHUNK = 4  # items a task: little work is shared out evenly, and an interrupt is answered soon
CHUNKS_AHEAD = 3  # a worker


def in_workers(
    function: Callable[[list[Item]], list[Result]], items: Iterable[Item], workers: int, chunk: int = CHUNK
) -> Iterator[Result]:
    """Yields the results of function(some of the items) one by one, in any order.

    Args:
        function: picklable; gets up to `chunk` items and returns their results.
        items: what to work on.
        workers: number of processes; 0 and 1 work in this one.
        chunk: items a call.

    Raises:
        UsageError: if a worker was killed, as a machine out of memory does.
    """
    chunks = _chunks(items, chunk)
    if workers <= 1:
        for part in chunks:
            yield from function(part)
        return
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None  # spawn would import torch anew
    context = multiprocessing.get_context(method)
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_the_parent) as pool:
            running: set[Future[list[Result]]] = set()
            for part in chunks:
                running.add(pool.submit(function, part))
                if len(running) >= CHUNKS_AHEAD * workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            for future in as_completed(running):
                yield from future.result()
    except BrokenProcessPool:
        raise UsageError('a worker process was killed (out of memory?); run again, with fewer --workers') from None


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _follow_the_parent() -> None:
    """Ctrl-C and SLURM's SIGTERM reach all processes; workers end with their parent, after the file they write.

    A parent that is killed says nothing, so a thread waits for its end: a worker would hang in its queue for good.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)
