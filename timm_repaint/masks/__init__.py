"""Mask sources: each turns an image into a label map. A new one is a class and a line in MASK_SOURCES."""

import argparse
from collections.abc import Callable
from typing import Protocol

import numpy as np

from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks


class MaskSource(Protocol):
    """What a mask source offers; it must pickle, since loader workers call it.

    Attributes:
        kind: 'segment' (ids without meaning) or 'semantic' (class ids, 255 = unknown).
        num_labels: number of classes of a semantic source, None for a segment source.
    """

    kind: str
    num_labels: int | None

    def __call__(self, image_u8: np.ndarray) -> np.ndarray:
        """Image [H, W, 3] uint8 to label map [H, W] uint16."""


def _build_fh(args: argparse.Namespace) -> MaskSource:
    return FelzenszwalbMasks(scale=args.fh_scale, sigma=args.fh_sigma, min_size=args.fh_min_size)


MASK_SOURCES: dict[str, Callable[[argparse.Namespace], MaskSource]] = {
    'fh': _build_fh,
}


def create_mask_source(args: argparse.Namespace) -> MaskSource:
    """Builds the mask source that args.mask names, from its own options.

    Raises:
        ValueError: if the name is unknown or the source refuses its options.
    """
    if args.mask not in MASK_SOURCES:
        raise ValueError(f'mask source {args.mask!r} is unknown; choose one of: {", ".join(MASK_SOURCES)}')
    return MASK_SOURCES[args.mask](args)
