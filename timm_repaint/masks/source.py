"""Where the label maps of a batch come from when they do not come with it."""

import logging
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timm_repaint.errors import UsageError
from timm_repaint.masks.deeplab import DeepLabV3Masks
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks

_logger = logging.getLogger('timm_repaint')
# Sources that need no settings, by name.
NAMED_SOURCES = {'fh': FelzenszwalbMasks, 'deeplabv3': DeepLabV3Masks}
WARN_AFTER_BATCHES = 20


def find_source(masks: Any) -> Any:
    """The mask source of a name, or the source itself.

    Raises:
        UsageError: if there is no such name, or the object is no mask source.
    """
    if isinstance(masks, str):
        if masks not in NAMED_SOURCES:
            raise UsageError(
                f'masks is {masks!r}; choose one of {", ".join(NAMED_SOURCES)}, give a mask source such as '
                'DeepLabV2Masks(FILE), or None where label maps come with the images'
            )
        return NAMED_SOURCES[masks]()
    if masks is not None and not (callable(masks) and hasattr(masks, 'kind') and hasattr(masks, 'num_labels')):
        raise UsageError(f'masks is a {type(masks).__name__}; it must be a name, a MaskSource or None')
    return masks


class Labeller:
    """Label maps for images that come without: on the device by a network, else one by one on the CPU.

    Args:
        masks: A name, a mask source, or None.
        num_labels: Classes of the label maps that come with the images; None: segments, or what the source gives.

    Attributes:
        num_labels: Classes of all label maps; None for segments.
    """

    def __init__(self, masks: Any, num_labels: int | None) -> None:
        source = find_source(masks)
        if source is not None and num_labels is not None and source.num_labels is None:
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
        maps = np.stack([self.source(image_u8).astype(np.int64) for image_u8 in images_u8])
        self._tell_cost(time.perf_counter() - start)
        return torch.from_numpy(maps).to(image_pm1.device)

    def _tell_cost(self, seconds: float) -> None:
        self._batches += 1
        self._seconds += seconds
        if self._batches == WARN_AFTER_BATCHES:
            _logger.warning(
                'Masks that are cut in forward cost %.0f ms a batch; cut them in the workers of the DataLoader: '
                "transform = timm_repaint.with_masks(transform, masks='fh')",
                1000 * self._seconds / self._batches,
            )
