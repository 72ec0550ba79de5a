"""Stored masks beside their images: the data set that reads both, and the transform that takes both.

dataset = StoredMaskImages(NamedImages(...), masks)    # or ShapesDataset(...) and OutlineMasks()
loader = create_loader(dataset, ...)
follow_schedule(loader.dataset, masks)                 # image sizes by schedule only
extend_normalization(loader)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.dataset import IterableImageDataset
from timm.data.scheduled_sampler import ScheduledTransformDataset
from torch.utils.data import Dataset

from timm_repaint.data.masked import append_labels, check_rgb
from timm_repaint.data.named import NamedImages
from timm_repaint.data.replay import OUTSIDE, Replay
from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.errors import UsageError
from timm_repaint.masks.archive import ArchiveMasks, keep_names
from timm_repaint.masks.folder import UNKNOWN, FolderMasks, StoredMasks


@dataclass
class Masked:
    """An image and its stored label map, [h, w] at the map's own size."""

    picture: Image.Image
    labels: np.ndarray


class WithStoredMask:
    """A transform that takes image and stored mask along: Masked to [4, H, W], as data.masked.WithMask gives it.

    Segments get other ids, small ones: beyond 255 they are numbered anew in each crop. Pixels from outside the image
    are a segment of their own; in semantic maps they are unknown, 255.

    Args:
        transform: timm's training transform.
        kind: 'segment' or 'semantic'.

    Raises:
        UsageError: if a mask cannot follow the transform.
    """

    def __init__(self, transform: Any, kind: str) -> None:
        self.replay = Replay(transform)
        self.semantic = kind == 'semantic'

    def __call__(self, masked: Masked) -> torch.Tensor:
        """Transforms image and mask alike.

        Returns:
            [4, H, W], uint8 or float32 like the transform's image: three image channels, labels.

        Raises:
            ValueError: if the transform yields no three channels.
        """
        image, moved = self.replay(masked.picture, masked.labels)
        labels = known_classes(moved) if self.semantic else segment_ids(moved)
        return append_labels(check_rgb(torch.as_tensor(image)), labels)


def segment_ids(moved: np.ndarray) -> np.ndarray:
    """Ids of the segments of label + 1, [H, W]: as they are if 8 bits hold them, else 0 to n - 1 in their order."""
    if moved.dtype == np.uint8:
        return moved
    present = np.bincount(moved.ravel()) > 0
    return np.take((np.cumsum(present) - 1).astype(np.uint16), moved)


def known_classes(moved: np.ndarray) -> np.ndarray:
    """Class ids of label + 1, [H, W]; 255 outside the image; uint16."""
    return np.where(moved == OUTSIDE, np.uint16(UNKNOWN), moved.astype(np.uint16) - np.uint16(1))


def has_files(dataset: Any) -> bool:
    """Whether a data set's images are files of their own, so that masks can lie beside them in a like tree."""
    return getattr(dataset, 'image_root', None) is not None


class WithStoredMasks:
    """A data set whose transform takes image and stored mask alike.

    Attributes:
        masks: Where the masks are.
    """

    masks: StoredMasks
    _transform: WithStoredMask | None = None

    @property
    def transform(self) -> WithStoredMask | None:
        return self._transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        takes_masks = transform is None or isinstance(transform, WithStoredMask)
        self._transform = transform if takes_masks else WithStoredMask(transform, self.masks.kind)

    def _with_mask(self, picture: Image.Image, labels: np.ndarray) -> Any:
        """Image with mask, [4, H, W]; a Masked without a transform."""
        masked = Masked(picture, labels)
        return masked if self._transform is None else self._transform(masked)


class StoredMaskImages(WithStoredMasks, Dataset):
    """Images with stored masks; an unreadable image is left out together with its mask.

    Args:
        dataset: images that are files of their own, see has_files; the built-in shapes for outlines.
        masks: a folder of masks, a mask cache, or outlines.

    Raises:
        UsageError: if masks are files and the images are not.
    """

    def __init__(self, dataset: NamedImages | ShapesDataset, masks: StoredMasks) -> None:
        if isinstance(masks, FolderMasks) and not has_files(dataset):
            raise UsageError('stored masks need images that are files in folders; leave out --mask-dir')
        self.dataset = dataset
        self.masks = masks
        self.dataset.transform = None  # image and mask are transformed here, together

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Image with mask, [4, H, W] (a Masked without a transform), then the target and what else is there.

        Raises:
            UsageError: if the mask is missing or does not fit its image.
        """
        (picture, *rest), position = self.dataset.read(index)
        labels = self.masks.of(self.dataset, position, (picture.height, picture.width))
        return self._with_mask(picture, labels), *rest

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in ('dataset', 'masks'):  # not there yet while a worker unpickles
            raise AttributeError(name)
        return getattr(self.dataset, name)  # filename(), skipped, set_epoch() …


class StoredMaskStream(WithStoredMasks, IterableImageDataset):
    """A stream of webdataset's shards with stored masks.

    Args:
        dataset: timm's data set of the shards.
        masks: those of its images.
    """

    def __init__(self, dataset: IterableImageDataset, masks: ArchiveMasks) -> None:
        self.masks: ArchiveMasks = masks
        super().__init__('', reader=dataset.reader, target_transform=dataset.target_transform)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Image with mask, [4, H, W], and target.

        Raises:
            UsageError: if a mask is missing or does not fit its image.
        """
        keep_names(self.reader)
        for (picture, name), target in self.reader:
            labels = self.masks.read(name, (picture.height, picture.width))
            known = target if self.target_transform is None else self.target_transform(target)
            yield self._with_mask(picture, labels), known


def follow_schedule(dataset: Any, masks: StoredMasks) -> None:
    """Lets timm's scheduled image sizes take masks along; other data sets stay as they are.

    Args:
        dataset: loader.dataset of a loader that timm made from a StoredMaskImages.
        masks: the same masks.
    """
    if isinstance(dataset, ScheduledTransformDataset):
        dataset.transforms = tuple(WithStoredMask(transform, masks.kind) for transform in dataset.transforms)
