"""Running the phases as processes, several runs at a time; a run that fails does not stop the others."""

import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

from bench.evidence.plan import Run
from bench.evidence.results import RESULT, collect, write_result
from timm_repaint.report.summary import UnfinishedError

LOG = 'log.txt'


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


def execute(run: Run, processes: Processes) -> None:
    """Both phases of a run, from scratch: what an earlier try left is removed. The result is written at the end.

    Raises:
        UnfinishedError: if a phase fails; with the last line of its log.
    """
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    start = time.monotonic()
    path = run.folder / LOG
    for command in run.commands:
        with open(path, 'a') as log:
            print(f'$ {shlex.join(command)}', file=log, flush=True)
            code = processes.call(command, log)
        if code:
            raise UnfinishedError(f'exit code {code}: {last_line(path)}')
    write_result(collect(run, time.monotonic() - start), run.folder)


def last_line(path: Path) -> str:
    lines = path.read_text(errors='replace').strip().splitlines()
    return lines[-1] if lines else ''


def execute_all(runs: Sequence[Run], jobs: int) -> Generator[tuple[Run, str], None, None]:
    """Each run as it ends, with what went wrong ('' if nothing); some are at work at the same time.

    A run that needs another one waits for it. When the caller stops early, all processes end.

    Args:
        runs: what to run, in this order.
        jobs: number of runs at a time.
    """
    waiting, running, processes = list(runs), dict[Future, Run](), Processes()
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
                        running[pool.submit(execute, run, processes)] = run
                for future in wait(running, return_when=FIRST_COMPLETED).done:
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
