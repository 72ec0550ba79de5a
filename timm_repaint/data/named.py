"""Unreadable images are named, counted and skipped, as timm skips them."""

import multiprocessing
from collections.abc import Callable
from typing import Any, TypeVar

from PIL import Image
from timm.data import ImageDataset
from timm.data.readers.reader_image_folder import ReaderImageFolder

from timm_repaint.errors import UsageError, one_line
from timm_repaint.log import logger
from timm_repaint.pictures import UNREADABLE, convert_picture, is_deep

T = TypeVar('T')


class Skipping:
    """Takes the next image for one that cannot be read, as timm does, and says which it was.

    Args:
        retries: After so many unreadable ones in a row it gives up.

    Attributes:
        count: Number of skipped reads so far, over all workers.
    """

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self._count = multiprocessing.Value('l', 0)

    @property
    def count(self) -> int:
        return self._count.value

    def read(self, load: Callable[[int], T], index: int, length: int, name: Callable[[int], str]) -> tuple[T, int]:
        """The image at `index`, or the next readable one, and its position.

        Args:
            load: Reads the image at a position, and raises an error of `UNREADABLE`.
            index: Which one is wanted.
            length: How many there are.
            name: What an image is called.

        Raises:
            UsageError: if too many in a row are unreadable.
        """
        reason = ''
        for attempt in range(self.retries):
            position = (index + attempt) % length
            try:
                return load(position), position
            except UNREADABLE as error:
                with self._count.get_lock():
                    self._count.value += 1
                    count = self._count.value
                reason = one_line(str(error)) or type(error).__name__
                logger.warning(
                    'Unreadable image %s skipped (%d skipped so far): %s', one_line(name(position)), count, reason
                )
        raise UsageError(f'{self.retries} unreadable images in a row, from {name(index)} on: {reason}')


class NamedImages(ImageDataset):
    """timm's image data set, which replaces an unreadable image by the next one, and says which it was.

    Images of more than 8 bits are scaled to 8, where timm's are cut at 255.

    Args:
        dataset: timm's data set; it gives up after as many unreadable images in a row as before.

    Attributes:
        skipped: Number of skipped reads so far, over all workers.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.__dict__.update(vars(dataset))
        self._skipping = Skipping(dataset._max_retries)
        self._deep = multiprocessing.Value('l', 0)

    @property
    def skipped(self) -> int:
        return self._skipping.count

    @property
    def image_root(self) -> str | None:
        """Folder of a data set whose images are files of their own; None for archives."""
        return self.reader.root if isinstance(self.reader, ReaderImageFolder) else None

    def __getitem__(self, index: int) -> Any:
        return self.read(index)[0]

    def read(self, index: int) -> tuple[Any, int]:
        """The sample at `index`, or the next readable one, and its position.

        Raises:
            UsageError: if too many in a row are unreadable.
        """
        opened, position = self._skipping.read(self._open, index, len(self), self.filename)
        return self._transformed(*opened), position

    def _open(self, position: int) -> tuple[Any, ...]:
        """Picture, target and what else the reader gives."""
        file, *rest = self.reader[position]
        picture = Image.open(file)
        if is_deep(picture) and not self._deep.value:
            self._deep.value = 1
            logger.warning(
                '%s has 16 bits a pixel or more: such images are scaled to 8 bits.', one_line(self.filename(position))
            )
        return convert_picture(picture, self.input_img_mode), *rest

    def _transformed(self, picture: Any, target: Any, *features: Any) -> tuple[Any, ...]:
        """What timm's data set makes of them."""
        if self.transform is not None:
            picture = self.transform(picture)
        if target is None:
            target = -1
        elif self.target_transform is not None:
            target = self.target_transform(target)
        return (picture, target) if self.additional_features is None else (picture, target, *features)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Path of an image; streams that know none give its number."""
        try:
            return super().filename(index, basename, absolute)
        except (AttributeError, NotImplementedError, AssertionError):
            return f'number {index}'
