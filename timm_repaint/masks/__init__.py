"""Mask sources: each turns an image into a label map. A new one is a class and a line in MASK_SOURCES."""

import argparse
from collections.abc import Callable
from typing import Protocol

import numpy as np

from timm_repaint.errors import UsageError
from timm_repaint.masks.deeplab import DeepLabV2Masks, DeepLabV3Masks
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks


class MaskSource(Protocol):
    """What a mask source offers; it must pickle, since loader workers call it.

    Attributes:
        kind: 'segment' (ids without meaning) or 'semantic' (class ids, 255 = unknown).
        num_labels: number of classes of a semantic source, None for a segment source.
        on_device: whether it is a network that works on batches, by `labels(image_pm1)`, instead of in loader workers.
    """

    kind: str
    num_labels: int | None
    on_device: bool

    def __call__(self, image_u8: np.ndarray) -> np.ndarray:
        """Image [H, W, 3] uint8 to label map [H, W] uint16."""


def _build_fh(args: argparse.Namespace) -> MaskSource:
    backend = getattr(args, 'fh_backend', 'auto')  # runs saved before there was a choice
    return FelzenszwalbMasks(args.fh_scale, args.fh_sigma, args.fh_min_size, backend)


def _build_deeplabv2(args: argparse.Namespace) -> MaskSource:
    if not args.mask_checkpoint:
        raise UsageError('--mask deeplabv2 needs --mask-checkpoint FILE, a COCO-Stuff or VOC checkpoint')
    return DeepLabV2Masks(args.mask_checkpoint)


def _refuse_stored(args: argparse.Namespace) -> MaskSource:
    raise UsageError(
        f'--mask {args.mask} has masks and makes none: images outside the data set need a run with another --mask'
    )


MASK_SOURCES: dict[str, Callable[[argparse.Namespace], MaskSource]] = {
    'fh': _build_fh,
    'deeplabv2': _build_deeplabv2,
    'deeplabv3': lambda args: DeepLabV3Masks(args.mask_checkpoint),
    'folder': _refuse_stored,
    'outlines': _refuse_stored,
}


def create_mask_source(args: argparse.Namespace) -> MaskSource:
    """Builds the mask source that args.mask names, from its own options.

    Raises:
        ValueError: if the name is unknown or the source refuses its options.
    """
    if args.mask not in MASK_SOURCES:
        raise ValueError(f'mask source {args.mask!r} is unknown; choose one of: {", ".join(MASK_SOURCES)}')
    return MASK_SOURCES[args.mask](args)
