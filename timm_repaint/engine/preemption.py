"""A cluster takes the machine back: SIGTERM or SIGUSR1 ends the run in order, to be put into the queue again.

The run finishes its update, saves a recovery checkpoint, says where, and exits with `REQUEUE_STATUS`. A second signal
ends it at once. `--resume auto` then goes on from the end of the last saved epoch (`last.pth.tar`), not from the
recovery checkpoint: with `--repaint` and in the fine-tune phase the epoch is done again exactly, so nothing tells the
result from an undisturbed run's. The recovery checkpoint is for `--resume FILE` by hand, which goes on with the next
epoch, as timm's script does after its own recovery checkpoints.
"""

import atexit
import multiprocessing
import os
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from timm_repaint.guard import LateValue

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
REQUEUE_STATUS = 75  # EX_TEMPFAIL: try again later
# A launcher that got the signal itself passes it on to processes that have it already.
SAME_SIGNAL_SECONDS = 1.0


class Preempted(Exception):  # noqa: N818, it is no error
    """The run stops between two updates because a signal asked for it."""


class StopRequest:
    """Handler of the signals; remembers that one came.

    Attributes:
        name: The signal's name; '' until one came.
        interrupted: Whether Ctrl-C came; its KeyboardInterrupt is lost where Python runs a destructor.
    """

    def __init__(self) -> None:
        self.name = ''
        self.interrupted = False
        self._time = 0.0
        self._answer = LateValue()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.name:
            self.name, self._time = signal.Signals(number).name, now
        elif now - self._time > SAME_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handler of Ctrl-C."""
        self.interrupted = True
        raise KeyboardInterrupt

    def agreed(self, args: Namespace) -> bool:
        """Whether to stop now; all processes have to ask after each update, and get the same answer.

        Several processes ask each other, and hear the answer one update later: so no device has to wait for it.
        """
        if not args.distributed:
            return bool(self.name)
        before = self._answer.read()
        answer = torch.tensor([int(bool(self.name))], device=args.device)
        torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MAX)
        self._answer.send(answer)
        return before == [1]


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGUSR1 as requests to stop in order, and note Ctrl-C; only the main thread can."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in SIGNALS}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job of a shell's ignores it
        before[signal.SIGINT] = signal.signal(signal.SIGINT, request.interrupt)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_request() -> StopRequest | None:
    """The handler that `stoppable` has installed, if any: signals belong to the process, and so does their handler."""
    handler = signal.getsignal(SIGNALS[0])
    return handler if isinstance(handler, StopRequest) else None


class PatientWorker:
    """A loader worker's first function: its own, and then to leave the signals to the main process.

    A cluster signals all processes of a job. A worker that died of it would take the run along before it has saved.

    Args:
        init: The loader's own function.
        closing: A shared number, not 0 when the main process ends; workers then follow the signal that sends them home.
    """

    def __init__(self, init: Callable[[int], None], closing: Any) -> None:
        self.init = init
        self.closing = closing

    def __call__(self, worker_id: int) -> None:
        self.init(worker_id)
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.closing.value:
            os._exit(0)


def keep_workers(loader: Any) -> None:
    """Let the workers of a loader of timm's outlive a signal that asks the run to stop."""
    inner = getattr(loader, 'loader', loader)
    if not getattr(inner, 'num_workers', 0):
        return
    closing = multiprocessing.RawValue('b', 0)  # without a lock, which a killed worker would keep
    atexit.register(setattr, closing, 'value', 1)
    inner.worker_init_fn = PatientWorker(inner.worker_init_fn, closing)
