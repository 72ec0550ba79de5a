"""A function over many items in worker processes, which torch's loader starts, feeds and ends."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from timm_repaint.errors import UsageError

Item = TypeVar('Item')
Result = TypeVar('Result')
CHUNK = 4  # items a task: little work is shared out evenly, and an interrupt is answered soon
CHUNKS_AHEAD = 3  # a worker


def in_workers(
    function: Callable[[list[Item]], list[Result]], items: Iterable[Item], workers: int, chunk: int = CHUNK
) -> Iterator[Result]:
    """Yields the results of function(some of the items) one by one; workers end with their parent.

    Args:
        function: picklable; gets up to `chunk` items and returns their results.
        items: what to work on.
        workers: number of processes; 0 and 1 work in this one.
        chunk: items a call.

    Raises:
        UsageError: if a worker was killed, as a machine out of memory does.
    """
    processes: dict[str, Any] = {}
    if workers > 1:
        processes = {'num_workers': workers, 'prefetch_factor': CHUNKS_AHEAD, 'worker_init_fn': _leave_signals}
        if 'fork' in multiprocessing.get_all_start_methods():  # spawn would import torch anew
            processes['multiprocessing_context'] = 'fork'
    loader: DataLoader[Any] = DataLoader(list(items), chunk, collate_fn=function, **processes)  # type: ignore[arg-type]
    batches: Any = iter(loader)
    try:
        for results in batches:
            yield from results
    except RuntimeError as error:
        if str(error).startswith('DataLoader worker'):  # torch's word for one that was killed
            raise UsageError('a worker process was killed (out of memory?); run again, with fewer --workers') from None
        raise
    finally:
        if processes:  # the frames of an exception keep torch's iterator, which else would end its workers
            batches._shutdown_workers()


def _leave_signals(worker: int) -> None:
    """Ctrl-C and SLURM's SIGTERM reach all processes; workers end with their parent, after the file they write."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
