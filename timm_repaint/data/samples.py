"""A few fixed images of a data set with their label maps, the same at every call: for galleries and measurements."""

from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from timm.data import create_transform
from torch import Tensor

from timm_repaint.data.stored import WithStoredMasks
from timm_repaint.pictures import to_pm1


@dataclass(frozen=True)
class Samples:
    """N images of one size and their label maps.

    Attributes:
        images_u8: N arrays [H, W, 3] uint8.
        labels: N arrays [H, W] uint16.
        targets: N classes, as the data set gives them.
    """

    images_u8: list[np.ndarray]
    labels: list[np.ndarray]
    targets: list[Any]

    @property
    def images_pm1(self) -> Tensor:
        """[N, 3, H, W] float32 in [-1, 1]."""
        return to_pm1(self.images_u8)

    @property
    def label_tensor(self) -> Tensor:
        """[N, H, W] int64."""
        return torch.from_numpy(np.stack(self.labels).astype(np.int64))


def fixed_samples(dataset: Any, masks: Any, data_config: dict[str, Any], count: int) -> Samples:
    """`count` images spread evenly over the data set (the first of a stream), resized and cropped to the input size."""
    size: dict[str, Any] = {name: data_config[name] for name in ('input_size', 'interpolation')}
    transform = create_transform(**size, is_training=False, use_prefetcher=True, crop_pct=1.0)
    images, targets = zip(*_pick(dataset, transform, count), strict=True)
    if isinstance(dataset, WithStoredMasks):
        images_u8 = [both[:3].permute(1, 2, 0).numpy() for both in images]
        return Samples(images_u8, [both[3].numpy().astype(np.uint16) for both in images], list(targets))
    images_u8 = [np.asarray(image).transpose(1, 2, 0) for image in images]
    return Samples(images_u8, [masks(image) for image in images_u8], list(targets))


def _pick(dataset: Any, transform: Any, count: int) -> list[tuple[Any, Any]]:
    """Images and classes of a timm, torchvision or built-in data set, with another transform than its own."""
    own, dataset.transform = dataset.transform, transform
    try:
        if not hasattr(dataset, '__getitem__') or isinstance(dataset, torch.utils.data.IterableDataset):
            stream = copy(dataset)  # the loader's workers start its reader, each for its own share
            if hasattr(stream, 'reader'):
                stream.reader = copy(stream.reader)
            return [sample[:2] for sample in islice(iter(stream), count)]
        count = min(count, len(dataset))
        # One further each time: evenly spaced images of a set that repeats its classes would all be of one class.
        step = max(1, len(dataset) // count)
        return [dataset[index * len(dataset) // count + index % step][:2] for index in range(count)]
    finally:
        dataset.transform = own
