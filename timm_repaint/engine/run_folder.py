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


class RunFolder(FolderLock):
    """The lock of a folder that this process alone writes a run to."""

    def take(self) -> None:
        """Make the folder, with those above it, and take its lock.

        Raises:
            UsageError: if it cannot be made, or another run goes on in it.
        """
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f'cannot make the folder {self.folder}: {error.strerror}; give another --output'
            ) from error
        super().take()

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
            lock = FolderLock(fine_tune)
            lock.take()
            lock.release()
        earlier = next(name for number in count(1) if (name := f'{EARLIER}{number}') not in names)
        target = os.path.join(self.folder, earlier)
        try:
            os.mkdir(target)
            for name in matching(names, (*RESULTS, *OTHERS, FINE_TUNE)):
                os.rename(os.path.join(self.folder, name), os.path.join(target, name))
        except OSError as error:
            raise UsageError(f'cannot move the files of an earlier run to {target}: {error.strerror}') from error
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


def matching(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The names that fit one of the patterns."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
