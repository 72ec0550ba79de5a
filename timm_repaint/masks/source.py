"""Where the label maps of a batch come from when they do not come with it."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.masks.choice import find_source

WARN_AFTER_BATCHES = 20


class Labeller:
    """Label maps for images that come without: on the device by a network, else one by one on the CPU.

    Args:
        masks: A name, a mask source, or None.
        num_labels: Classes of the label maps that come with the images; None: segments, or what the source gives.

    Attributes:
        num_labels: Classes of all label maps; None for segments.

    Raises:
        UsageError: if the source has other classes.
    """

    def __init__(self, masks: Any, num_labels: int | None) -> None:
        source = find_source(masks)
        own = num_labels if source is None else source.num_labels
        if num_labels not in (None, own):
            if own is not None or not isinstance(masks, str):
                raise UsageError(f'num_labels is {num_labels}, the masks have {own}; leave num_labels out')
            source = None  # classes come with the images; segments are no classes
        self.source = source
        self.num_labels: int | None = num_labels if source is None else source.num_labels
        self._batches = 0
        self._seconds = 0.0

    def __call__(self, image_pm1: Tensor) -> Tensor:
        """Cut the label maps of images [K, 3, H, W] in [-1, 1]: [K, H, W] int64 on their device.

        Raises:
            UsageError: if there is no source.
        """
        if self.source is None:
            raise UsageError('the images have no label maps and there is no mask source; give labels=…, or masks=…')
        if self.source.on_device:
            labels: Tensor = self.source.to(image_pm1.device).labels(image_pm1)
            return labels
        start = time.perf_counter()
        images_u8 = ((image_pm1.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        maps = np.stack([np.asarray(self.source(image_u8)).astype(np.int64) for image_u8 in images_u8])
        self._tell_cost(time.perf_counter() - start)
        return torch.from_numpy(maps).to(image_pm1.device)

    def _tell_cost(self, seconds: float) -> None:
        self._batches += 1
        self._seconds += seconds
        if self._batches == WARN_AFTER_BATCHES:
            logger.warning(
                'Masks that are cut in forward cost %.0f ms a batch; leave masks to their default, or '
                "cut them in the workers of the DataLoader: transform = timm_repaint.with_masks(transform, masks='fh')",
                1000 * self._seconds / self._batches,
            )
