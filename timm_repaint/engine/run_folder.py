"""The output folder of a run: one run at a time, no files of another one among its own."""

import fnmatch
import os
from itertools import count

from timm_repaint.engine.folder_lock import FolderLock
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.options.run_file import ARGS, CUE_CONFLICT, EARLIER, FINE_TUNE

RESULTS = ('last.pth.tar', 'model_best.pth.tar', 'checkpoint-*.pth.tar', 'milestone-*.pth.tar')
OTHERS = (
    *('summary.csv', 'best_epochs.json', 'report.html', ARGS, CUE_CONFLICT),
    *('recovery-*.pth.tar', 'gallery-*.png', 'train-batch-*.jpg', 'tensorboard'),
)


class RunFolder:
    """A folder that this process alone writes a run to.

    Args:
        path: Is made, with the folders above it.

    Raises:
        UsageError: if it cannot be made, or another run goes on in it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = FolderLock(path)
        self._open()

    def _open(self) -> None:
        try:
            os.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise UsageError(f'cannot make the folder {self.path}: {error.strerror}; give another --output') from error
        self._lock.take()

    def set_aside(self) -> None:
        """Put the files of an earlier run, if it has left checkpoints, into a folder of their own.

        Raises:
            UsageError: if its fine-tune phase goes on.
        """
        names = sorted(os.listdir(self.path))
        if not matching(names, RESULTS):
            return
        fine_tune = os.path.join(self.path, FINE_TUNE)
        if os.path.isdir(fine_tune):
            lock = FolderLock(fine_tune)
            lock.take()
            lock.release()
        earlier = next(name for number in count(1) if (name := f'{EARLIER}{number}') not in names)
        target = os.path.join(self.path, earlier)
        try:
            os.mkdir(target)
            for name in matching(names, (*RESULTS, *OTHERS, FINE_TUNE)):
                os.rename(os.path.join(self.path, name), os.path.join(target, name))
        except OSError as error:
            raise UsageError(f'cannot move the files of an earlier run to {target}: {error.strerror}') from error
        logger.warning(
            '%s holds another run, and this one does not go on from it: its files are now in %s.', self.path, target
        )

    def keep(self) -> bool:
        """Make the folder anew if somebody has removed it; returns whether it was there.

        Raises:
            UsageError: if another run has taken it since.
        """
        if self._lock.held:
            return True
        self._open()
        logger.warning(
            '%s was removed while the run writes to it: it is there again, with what comes from here on.', self.path
        )
        return False

    def release(self) -> None:
        """Let other runs have it."""
        self._lock.release()


def matching(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The names that fit one of the patterns."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
