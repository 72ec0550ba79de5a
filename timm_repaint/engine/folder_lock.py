"""The output folder of a run: one run at a time, on a network disk too, and no files of another one among its own.

A dead process leaves no lock behind: the kernel's lock on a file goes with its process. Disks that have none, or none
that other machines hear of, have heartbeats instead: the file's time moves while its owner lives.
"""

import fcntl
import fnmatch
import json
import os
import socket
import threading
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.log import logger
from timm_repaint.options.run_file import ARGS, CUE_CONFLICT, EARLIER, FINE_TUNE

NAME = '.lock'
BEAT_SECONDS = 10.0
PATIENCE = 2.5  # beats without a sign of life of a process on another machine
RESULTS = ('last.pth.tar', 'model_best.pth.tar', 'checkpoint-*.pth.tar', 'milestone-*.pth.tar')
OTHERS = (
    *('summary.csv', 'report.html', ARGS, CUE_CONFLICT),
    *('recovery-*.pth.tar', 'gallery-*.png', 'train-batch-*.jpg', 'tensorboard'),
)


class RunFolder:
    """A folder that one process at a time writes a run to, as it has the folder's lock.

    Args:
        folder: Is made when the lock is taken, with those above it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = str(folder)
        self.path = Path(folder) / NAME
        self._file: int | None = None
        self._over = threading.Event()
        self._beat: threading.Thread | None = None

    def take(self) -> None:
        """Make the folder and take its lock, which this process must not have.

        Raises:
            UsageError: if another process has it, or the folder cannot be made or written.
        """
        with as_mistake(f'cannot write to the folder {self.folder}', advice='; give another --output'):
            os.makedirs(self.folder, exist_ok=True)
        with as_mistake(f'cannot write to the folder {self.folder}'):
            while not self._take_once():  # the owner of before removed the file between two steps
                pass

    @property
    def held(self) -> bool:
        """Whether the file that this process locked is still at its place."""
        try:
            return self._file is not None and os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock back; does nothing without it."""
        self._over.set()
        if self._beat is not None:  # it must not outlive the open file
            self._beat.join()
        if self._file is None:
            return
        if self.held:
            with suppress(OSError):
                self.path.unlink()
        os.close(self._file)
        self._file = None

    def _take_once(self) -> bool:
        self.release()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            kernel_locks = lock_by_kernel(self._file)
            owner = read_owner(self._file)
            if kernel_locks is False or (owner and lives(owner, bool(kernel_locks), self.path)):
                raise UsageError(f'{self.folder} is in use by {describe(owner)}; wait for its end or give another name')
            if not self.held:
                return False
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(this_process()).encode(), 0)
        except BaseException:
            os.close(self._file)
            self._file = None
            raise
        self._over = threading.Event()
        self._beat = threading.Thread(target=beat, args=(self._file, self._over), daemon=True)
        self._beat.start()
        return True

    def set_aside(self) -> None:
        """Put the files of an earlier run, if it has left checkpoints, into a folder of their own.

        Raises:
            UsageError: if its fine-tune phase goes on.
        """
        names = sorted(os.listdir(self.folder))
        if not matching(names, RESULTS):
            return
        fine_tune = os.path.join(self.folder, FINE_TUNE)
        if os.path.isdir(fine_tune):
            lock = RunFolder(fine_tune)
            lock.take()
            lock.release()
        earlier = next(name for number in count(1) if (name := f'{EARLIER}{number}') not in names)
        target = os.path.join(self.folder, earlier)
        with as_mistake(f'cannot move the files of an earlier run to {target}'):
            os.mkdir(target)
            for name in matching(names, (*RESULTS, *OTHERS, FINE_TUNE)):
                os.rename(os.path.join(self.folder, name), os.path.join(target, name))
        logger.warning(
            '%s holds another run, and this one does not go on from it: its files are now in %s.', self.folder, target
        )

    def keep(self) -> bool:
        """Make the folder anew if somebody has removed it; returns whether it was there.

        Raises:
            UsageError: if another run has taken it since.
        """
        if self.held:
            return True
        self.take()
        logger.warning(
            '%s was removed while the run writes to it: it is there again, with what comes from here on.', self.folder
        )
        return False


def lock_by_kernel(file: int) -> bool | None:
    """Whether this process has the kernel's lock on a file now; None where the disk has no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: a loader's worker would keep that one
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def this_process() -> dict[str, Any]:
    """What tells a process from all others."""
    pid = os.getpid()
    return {'host': socket.gethostname(), 'pid': pid, 'started': start_of(pid), 'since': time.strftime('%F %T')}


def start_of(pid: int) -> str | None:
    """When a process of this machine started, in ticks since the machine's start; None where there is none."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]
    except (OSError, IndexError):
        return None


def read_owner(file: int) -> dict[str, Any]:
    """What a process wrote into its lock; {} where that is nothing."""
    try:
        owner = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def lives(owner: dict[str, Any], kernel_locks: bool, path: Path) -> bool:
    """Whether the process that wrote the lock goes on, as far as the kernel's locks do not say it."""
    me = this_process()
    if owner.get('host') != me['host']:
        return beats(path, owner)
    if kernel_locks and owner.get('pid') != me['pid']:
        return False
    return isinstance(owner.get('pid'), int) and start_of(owner['pid']) == owner.get('started') is not None


def beats(path: Path, owner: dict[str, Any]) -> bool:
    """Wait for a sign of life of a process on another machine."""
    with suppress(OSError):
        last, deadline = os.stat(path).st_mtime_ns, time.monotonic() + PATIENCE * BEAT_SECONDS
        logger.info('%s is of %s; waiting for a sign of life.', path, describe(owner))
        while time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS / 20)
            if os.stat(path).st_mtime_ns != last:
                return True
    return False


def beat(file: int, over: threading.Event) -> None:
    """Move the file's time until it is over."""
    while not over.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(file)


def describe(owner: dict[str, Any]) -> str:
    """The owner of a lock, for messages."""
    if not owner:
        return 'another run'
    return f'another run (process {owner.get("pid")} on {owner.get("host")}, since {owner.get("since")})'


def matching(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The names that fit one of the patterns."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
