"""A work, a fault at a moment that a seed chooses, and the same command again: the result is that without a fault."""

import errno
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.helpers import same_tensors
from tests.runs.faults.works import WORKS, assert_readable, environment, result_of

CHANGES = ('open', 'os.rename', 'os.link', 'os.remove', 'os.mkdir', 'os.truncate')
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SIGNALS = {'kill': signal.SIGKILL, 'term': signal.SIGTERM}
KINDS = (*SIGNALS, 'kill later', 'term later', 'full', 'read-only')
LIMIT_SECONDS = 120
server = multiprocessing.get_context('forkserver')
server.set_forkserver_preload(['tests.processes', 'tests.runs.faults.works'])


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        kind: Of KINDS. A signal comes ahead of a change of a file, or 'later' at a time; the disk refuses changes, or
            has no more room than a share of what the work needs.
        share: When, as a share of the undisturbed run's changes, seconds or bytes.
        rank: In which process.
    """

    kind: str
    share: float
    rank: int = 0


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its result, changes of files, seconds and bytes."""

    result: dict[str, Any]
    changes: int
    seconds: float
    size: int


def fault_of(seed: int) -> tuple[str, Fault]:
    """The work and the fault of a seed; ten in a row have all works and all kinds."""
    draw = random.Random(seed)
    work = list(WORKS)[seed % len(WORKS)]
    kind = KINDS[(seed + seed // len(KINDS)) % len(KINDS)]
    return work, Fault(kind, draw.random(), draw.randrange(WORKS[work].processes))


class Watch:
    """Counts what a process is about to change in a folder, and does something ahead of the change of a number."""

    def __init__(self, folder: Path, fault: Fault | None, moment: int) -> None:
        self.folder, self.fault, self.moment, self.count = str(folder), fault, moment, 0
        sys.addaudithook(self)

    def __call__(self, event: str, values: tuple) -> None:
        if event not in CHANGES or not str(values[0]).startswith(self.folder):
            return
        if event == 'open' and not (isinstance(values[2], int) and values[2] & WRITES):
            return
        self.count += 1
        if self.fault is None or self.count < self.moment:
            return
        if self.fault.kind == 'read-only':
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), values[0])
        if self.count == self.moment and self.fault.kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.fault.kind])


def _work(name: str, inputs: Path, output: Path, logs: Path, rank: int, port: int, fault: Fault | None, moment: int):
    log = os.open(logs / f'{rank}.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment(rank, WORKS[name].processes, port)
    watch = Watch(output, fault if fault is None or fault.rank == rank else None, moment)
    try:
        WORKS[name].run(inputs, output)
    finally:
        (logs / f'{rank}.count').write_text(str(watch.count))


def attempt(name: str, inputs: Path, output: Path, logs: Path, fault: Fault | None = None, whole: Whole | None = None):
    """Run a work, with a fault or without; its processes' exit statuses."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    logs.mkdir(parents=True, exist_ok=True)
    moment = 1 + int(fault.share * whole.changes) if fault and whole else 0
    processes = [
        server.Process(target=_work, args=(name, inputs, output, logs, rank, port, fault, moment))
        for rank in range(WORKS[name].processes)
    ]
    for process in processes:
        process.start()
    if fault and whole and fault.kind.endswith('later'):
        processes[fault.rank].join(fault.share * whole.seconds)
        with suppress(ProcessLookupError):  # it has ended
            os.kill(processes[fault.rank].pid or 0, SIGNALS[fault.kind.split()[0]])
    return wait(processes)


def wait(processes: list[BaseProcess]) -> list[int | None]:
    """Wait for all; where one has failed the others get a moment, then are killed, as a launcher does."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while any(process.is_alive() for process in processes):
        if any(process.exitcode not in (None, 0) for process in processes):
            deadline = min(deadline, time.monotonic() + 3)
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        processes[0].join(0.02)
        time.sleep(0.02)
    return [process.exitcode for process in processes]


def said(logs: Path, rank: int | str = '*') -> str:
    """What all processes, or one of them, wrote."""
    return '\n'.join(path.read_text(errors='replace') for path in sorted(logs.glob(f'{rank}.txt')))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at a folder; only root can make one."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], check=True)
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


def grow(folder: Path) -> None:
    subprocess.run(['mount', '-o', 'remount,size=200m', folder], check=True)


def run_whole(name: str, inputs: Path, output: Path) -> Whole:
    """The undisturbed run; its result stays at OUTPUT."""
    logs = output.with_name(f'{output.name}-logs')
    WORKS[name].prepare(inputs, output)
    start = time.monotonic()
    statuses = attempt(name, inputs, output, logs)
    seconds = time.monotonic() - start
    assert not any(statuses), said(logs)
    size = sum(path.stat().st_size for path in output.rglob('*') if path.is_file())
    return Whole(result_of(output), int((logs / '0.count').read_text()), seconds, size)


def try_fault(name: str, fault: Fault, inputs: Path, folder: Path, whole: Whole) -> str:
    """Let a fault happen, look at what is left, and go on to the end.

    Returns:
        How the disturbed run ended.
    """
    output = folder / 'out'
    if fault.kind != 'full':
        output.mkdir(parents=True)
        WORKS[name].prepare(inputs, output)
        return disturb(name, fault, inputs, output, whole)
    prepared = sum(path.stat().st_size for path in (inputs / WORKS[name].inputs).rglob('*') if path.is_file())
    room = prepared + 100_000 if WORKS[name].inputs else 20_000
    with small_disk(output, room + int(fault.share * whole.size)):
        WORKS[name].prepare(inputs, output)
        return disturb(name, fault, inputs, output, whole)


def disturb(name: str, fault: Fault, inputs: Path, output: Path, whole: Whole) -> str:
    """See `try_fault`."""
    logs = output.with_name('logs')
    statuses = attempt(name, inputs, output, logs / 'first', fault, whole)
    words = said(logs / 'first')
    assert_readable(output)
    assert 'Traceback' not in words, words
    if fault.kind in ('full', 'read-only') and any(statuses):
        reason = os.strerror(errno.ENOSPC if fault.kind == 'full' else errno.EROFS)
        last = said(logs / 'first', fault.rank if fault.kind == 'read-only' else 0).splitlines()[-1]
        assert last.startswith('error: ') and reason in last, words
    if fault.kind == 'full':
        grow(output)
    again = attempt(name, inputs, output, logs / 'again')
    assert not any(again), said(logs / 'again')
    result = result_of(output)
    assert result.keys() == whole.result.keys(), (sorted(result), sorted(whole.result))
    different = [part for part in result if not same_tensors(result[part], whole.result[part])]
    assert not different, f'{different} differ\n{words}\n{said(logs / "again")}'
    return ', '.join(map(str, statuses))
