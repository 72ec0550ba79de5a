"""Unreadable images are named, counted and skipped, as timm skips them."""

import logging
import multiprocessing
from typing import Any

from timm.data import ImageDataset
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch.utils.data import Dataset

_logger = logging.getLogger('timm_repaint')


class NamedImages(Dataset):
    """timm's image data set, which replaces an unreadable image by the next one, and says which it was.

    Args:
        dataset: timm's data set; it gives up after as many unreadable images in a row as before.

    Attributes:
        skipped: Number of skipped reads so far, over all workers.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self._retries, dataset._max_retries = dataset._max_retries, 1
        self._skipped = multiprocessing.Value('l', 0)

    @property
    def skipped(self) -> int:
        return self._skipped.value

    @property
    def image_root(self) -> str | None:
        """Folder of a data set whose images are files of their own; None for archives."""
        reader = self.dataset.reader
        return reader.root if isinstance(reader, ReaderImageFolder) else None

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __getitem__(self, index: int) -> Any:
        return self.read(index)[0]

    def read(self, index: int) -> tuple[Any, int]:
        """The sample at `index`, or the next readable one, and its position.

        Raises:
            RuntimeError: if too many in a row are unreadable.
        """
        for attempt in range(self._retries):
            position = (index + attempt) % len(self)
            try:
                return self.dataset[position], position
            except RuntimeError as error:
                if 'consecutive samples' not in str(error):  # not timm's word for an unreadable image
                    raise
            with self._skipped.get_lock():
                self._skipped.value += 1
                count = self._skipped.value
            _logger.warning('Unreadable image %s skipped (%d skipped so far).', self.filename(position), count)
        raise RuntimeError(f'{self._retries} unreadable images in a row, from {self.filename(index)} on')

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in ('dataset', '_skipped', '_retries'):  # not there yet while a worker unpickles
            raise AttributeError(name)
        return getattr(self.dataset, name)  # filename(), reader, set_epoch() …

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Path of an image; streams that know none give its number."""
        try:
            return self.dataset.filename(index, basename, absolute)
        except (AttributeError, NotImplementedError, AssertionError):
            return f'number {index}'
