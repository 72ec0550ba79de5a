"""Masks that are there before training: PNG label maps in a tree like the images', the cache (such a folder with a
manifest), and the outlines that the built-in shapes are drawn from.
"""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from timm_repaint.errors import UsageError
from timm_repaint.masks.label_png import is_of, load_labels
from timm_repaint.masks.manifest import read_manifest

UNKNOWN = 255  # semantic maps: no class


def mask_name(image_name: str) -> str:
    """Name of the mask of an image: cat/a.jpg to cat/a.png."""
    return os.path.splitext(image_name)[0] + '.png'


def mask_size(image_hw: tuple[int, int], size_px: int) -> tuple[int, int]:
    """Height and width of the mask that a cache holds for an image: shorter side at most size_px, never enlarged."""
    height, width = image_hw
    shorter = min(height, width)
    if shorter <= size_px:
        return height, width
    return round(height * size_px / shorter), round(width * size_px / shorter)


def resize_nearest(labels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Labels [h, w] at another size, [H, W]: the one under each pixel's centre."""
    rows, columns = (
        (np.arange(size) * 2 + 1) * old // (2 * size) for size, old in zip(size_hw, labels.shape, strict=True)
    )
    return labels[rows][:, columns]


class StoredMasks(ABC):
    """Masks that belong to a data set's images and are moved with them.

    Attributes:
        kind: 'segment' or 'semantic'.
        num_labels: number of classes of semantic masks, None for segments.
        on_device: False: no network makes them.
    """

    kind: str
    num_labels: int | None
    on_device = False

    @abstractmethod
    def of(self, dataset: Any, index: int, image_hw: tuple[int, int]) -> np.ndarray:
        """The mask of image `index` of a data set, [h, w] uint8 or uint16; the image is of size `image_hw`."""


class OutlineMasks(StoredMasks):
    """The outlines of the built-in shapes: two segments, the shape and what is around it."""

    kind = 'segment'
    num_labels = None

    def of(self, dataset: Any, index: int, image_hw: tuple[int, int]) -> np.ndarray:
        """See `StoredMasks`: [H, W]; the data set is a `ShapesDataset`."""
        return dataset.outline(index)


class FolderMasks(StoredMasks):
    """Label maps of a data set's images: IMAGES/cat/a.jpg has MASKS/cat/a.png, pixel by pixel.

    Args:
        mask_dir: folder of the masks.
        image_root: folder of the images to which mask_dir is the like.
        num_labels: number of classes of semantic masks (255 = unknown); None: segments, whose ids mean nothing.

    Attributes:
        kind: 'segment' or 'semantic'.

    Raises:
        UsageError: if mask_dir is no folder, or there are more than 255 classes.
    """

    size_px: int | None = None  # the masks are as large as their images
    advice = 'give label maps of the size of the images as stored (no rotation by EXIF)'

    def __init__(self, mask_dir: str | Path, image_root: str | Path, num_labels: int | None = None) -> None:
        if not os.path.isdir(mask_dir):
            raise UsageError(f'mask folder {mask_dir} does not exist')
        if num_labels is not None and num_labels > UNKNOWN:
            raise UsageError(f'masks of {num_labels} classes; at most {UNKNOWN} are possible, label 255 is unknown')
        self.mask_dir = str(mask_dir)
        self.image_root = os.path.abspath(image_root)
        self.num_labels = num_labels
        self.kind = 'segment' if num_labels is None else 'semantic'

    def mask_path(self, image_path: str | Path) -> str:
        """Path of an image's mask.

        Raises:
            UsageError: if the image does not lie in image_root.
        """
        path = os.path.abspath(image_path)
        inside = os.path.join(self.image_root, '')
        if not path.startswith(inside):
            raise UsageError(f'image {image_path} is not in {self.image_root}, so it has no mask in {self.mask_dir}')
        return os.path.join(self.mask_dir, mask_name(path[len(inside) :]))

    def of(self, dataset: Any, index: int, image_hw: tuple[int, int]) -> np.ndarray:
        """See `StoredMasks`: [H, W]; the data set's images are files. Raises as `read` does."""
        return self.read(dataset.filename(index, absolute=True), image_hw)

    def read(self, image_path: str | Path, image_hw: tuple[int, int]) -> np.ndarray:
        """The mask of an image as it is stored.

        Args:
            image_path: file of the image.
            image_hw: the image's height and width, as stored: no rotation by EXIF.

        Returns:
            [h, w], uint8 or uint16, of mask_size(image_hw, size_px); for a plain folder [H, W] like the image.

        Raises:
            UsageError: if the mask is missing, unreadable, of another size or has labels beyond the classes.
        """
        path = self.mask_path(image_path)
        labels = load_labels(path)
        expected = tuple(image_hw) if self.size_px is None else mask_size(image_hw, self.size_px)
        if labels.shape != expected:
            raise UsageError(
                f'mask {path} is {_by(labels.shape)}, its image is {_by(image_hw)} and wants {_by(expected)}; '
                f'{self.advice}'
            )
        if self.num_labels is not None:
            highest = int(labels.max(initial=0, where=labels != UNKNOWN))
            if highest >= self.num_labels:
                raise UsageError(
                    f'mask {path} has label {highest}, classes are 0 to {self.num_labels - 1} and 255 (unknown)'
                )
        return labels

    def load(self, image_path: str | Path, image_hw: tuple[int, int]) -> np.ndarray:
        """The mask of an image at the image's own size, [H, W], uint8 or uint16; see `read`."""
        return resize_nearest(self.read(image_path, image_hw), image_hw)


class CachedMasks(FolderMasks):
    """Masks that `python -m timm_repaint.masks IMAGES OUT` made.

    Args:
        mask_dir: OUT.
        image_root: IMAGES.

    Attributes:
        manifest: what the masks were made from.

    Raises:
        UsageError: if mask_dir is not a mask cache.
    """

    advice = 'make the masks again with timm-repaint masks'

    def __init__(self, mask_dir: str | Path, image_root: str | Path) -> None:
        self.manifest = read_manifest(mask_dir)
        super().__init__(mask_dir, image_root, self.manifest.num_labels)
        self.size_px = self.manifest.size_px

    def read(self, image_path: str | Path, image_hw: tuple[int, int]) -> np.ndarray:
        """See `FolderMasks`; a mask of another image is refused too."""
        labels, path = super().read(image_path, image_hw), self.mask_path(image_path)
        if not is_of(path, str(image_path)):
            raise UsageError(f'mask {path} was made from another image than {image_path} is now; {self.advice}')
        return labels


def _by(size_hw: tuple[int, ...]) -> str:
    return 'x'.join(map(str, size_hw))
