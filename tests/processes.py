"""Training in processes that a test signals or kills: each is forked from a server that has imported everything."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

import train
from tests.helpers import SCHEDULE, TINY, call_main

_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['tests.processes'])


def _train(output: Path, args: tuple) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    log = os.open(output / 'log.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(call_main(train.main, *TINY, *SCHEDULE, '--output', output, '--experiment', 'run', *args))


def start_training(output: Path, *args: object) -> BaseProcess:
    """`train.py` on tiny networks in a process of its own; it writes to OUTPUT/log.txt."""
    output.mkdir(parents=True, exist_ok=True)
    process = _context.Process(target=_train, args=(output, args))
    process.start()
    return process


def start_two(function: Callable, *args: object) -> None:
    """Call function(rank, *args) in two processes at once and wait for both; an error in one of them is raised."""
    torch.multiprocessing.start_processes(function, args, nprocs=2, start_method='forkserver')


def wait_until(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Wait for a condition while the process runs."""
    while not condition():
        assert process.is_alive(), f'the process ended with {process.exitcode} ahead of time'
        time.sleep(0.01)


def status_of(process: BaseProcess) -> int | None:
    """The exit status of a process that is about to end; minus the signal's number if one killed it."""
    process.join()
    return process.exitcode
