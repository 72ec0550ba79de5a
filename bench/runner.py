"""Running the phases as processes, several runs at a time; a run that fails does not stop the others."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Protocol, TypeVar

from timm_repaint.errors import UsageError
from timm_repaint.files import write_text
from timm_repaint.progress import progress
from timm_repaint.report.summary import UnfinishedError

REPO = Path(__file__).resolve().parents[1]
LOG, RESULT = 'log.txt', 'result.json'
SECONDS = 'seconds.txt'  # that earlier tries of a run took


class BenchRun(Protocol):
    """What is run.

    Attributes:
        name: for messages.
        folder: of the run, with its log and, at its end, its result.
        commands: one for each phase.
        needs: folder of the run that comes first, if any.
    """

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def commands(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def needs(self) -> Path | None: ...


AnyRun = TypeVar('AnyRun', bound=BenchRun)


class Processes:
    """The processes that run now, so that all of them can be ended."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def call(self, command: Sequence[str], log: IO[str]) -> int:
        """Run a command to its end; its exit code. After `stop` nothing starts any more."""
        with self._lock:
            if self._stopped:
                raise UnfinishedError('stopped')
            environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            self.running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self.running.discard(process)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self.running:
                process.terminate()


def execute(run: AnyRun, processes: Processes, finish: Callable[[AnyRun, float], None], afresh: bool) -> None:
    """All phases of a run, then its result; see `execute_all`.

    Raises:
        UnfinishedError: if a phase fails; with the last line of its log.
    """
    if afresh:
        shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    spent = run.folder / SECONDS
    start = time.monotonic() - (float(spent.read_text()) if spent.is_file() else 0)
    path = run.folder / LOG
    try:
        for command in run.commands:
            with open(path, 'a') as log:
                print(f'$ {shlex.join(command)}', file=log, flush=True)
                code = processes.call(command, log)
            if code:
                raise UnfinishedError(f'exit code {code}: {last_line(path)}')
    finally:
        write_text(spent, str(time.monotonic() - start))
    finish(run, time.monotonic() - start)


def last_line(path: Path) -> str:
    lines = path.read_text(errors='replace').strip().splitlines()
    return lines[-1] if lines else ''


def execute_all(
    runs: Sequence[AnyRun], jobs: int, finish: Callable[[AnyRun, float], None], afresh: bool = True
) -> Generator[tuple[AnyRun, str], None, None]:
    """Each run as it ends, with what went wrong ('' if nothing); some are at work at the same time.

    A run that needs another one waits for it. When the caller stops early, all processes end.

    Args:
        runs: what to run, in this order.
        jobs: number of runs at a time.
        finish: leaves a run's result, given its seconds.
        afresh: whether what an earlier try left is removed; False: its commands go on from that.
    """
    waiting, running, processes = list(runs), dict[Future, AnyRun](), Processes()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                busy = {run.folder for run in [*waiting, *running.values()]}
                for run in [run for run in waiting if run.needs not in busy]:
                    if run.needs is not None and not (run.needs / RESULT).is_file():
                        waiting.remove(run)
                        yield run, f'it needs {run.needs}, which has not finished'
                    elif len(running) < jobs:
                        waiting.remove(run)
                        running[pool.submit(execute, run, processes, finish, afresh)] = run
                # Woken each second: a signal that comes right before a wait without end would be seen at its end only.
                for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), problem_of(future)
        finally:
            processes.stop()


def problem_of(future: Future) -> str:
    """What went wrong in a run, in words; '' if nothing. Errors of our own code are raised."""
    try:
        future.result()
    except (UnfinishedError, OSError) as error:
        return str(error)
    return ''


def run_all(
    runs: Sequence[AnyRun],
    jobs: int,
    finish: Callable[[AnyRun, float], None],
    update: Callable[[], object],
    afresh: bool = True,
) -> list[tuple[AnyRun, str]]:
    """See `execute_all`, with a progress bar.

    Args:
        update: called after each run that leaves a result, to keep tables up to date.

    Returns:
        The failed ones with the reason.
    """
    failed = []
    with contextlib.closing(execute_all(runs, jobs, finish, afresh)) as outcomes:
        for run, problem in progress(outcomes, 'runs', len(runs)):
            if problem:
                failed.append((run, problem))
            else:
                update()
    return failed


def tell_failed(failed: Sequence[tuple[BenchRun, str]]) -> int:
    """Name the runs that failed; the exit code."""
    for run, problem in failed:
        log = run.folder / LOG
        print(f'failed: {run.name}: {problem}' + (f' (log: {log})' if log.is_file() else ''), file=sys.stderr)
    return 1 if failed else 0


def make_masks(images: Path, masks: Path, workers: int) -> None:
    """Make the masks of training images; those that are there stay, and unreadable images have none, as in training.

    Raises:
        UsageError: if another image has no mask.
    """
    command = [sys.executable, '-m', 'timm_repaint.masks', str(images), str(masks), '--skip-unreadable']
    if subprocess.run([*command, '--mask', 'fh', '--workers', str(workers)], cwd=REPO).returncode:
        raise UsageError(f'the masks of {images} could not be made, see above')
