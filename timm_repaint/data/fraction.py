"""A share of the training images, the same ones for every run (`--train-fraction`)."""

import os
from typing import Any

import numpy as np

from timm_repaint.data.stored import has_files
from timm_repaint.errors import UsageError


def fixed_share(count: int, fraction: float) -> np.ndarray:
    """Indices [N] of the things of `count` in a share, at least one, in order: the first ones of a fixed shuffle.

    Whatever the run's seed; a smaller share is a part of a larger one.
    """
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[: max(1, round(fraction * count))])


def keep_fraction(dataset: Any, fraction: float) -> None:
    """Leave the share `fraction` of each class's images in the data set: see `fixed_share`.

    Args:
        dataset: Images that are files in class folders; its list of images is shortened.
        fraction: Above 0, below 1.

    Raises:
        UsageError: if the images are no such files.
    """
    if not has_files(dataset):
        raise UsageError('--train-fraction needs images that are files in class folders; leave it out')
    reader = dataset.reader
    by_class: dict[Any, list[tuple[str, Any]]] = {}
    for path, target in reader.samples:
        by_class.setdefault(target, []).append((path, target))
    kept = []
    for samples in by_class.values():
        samples.sort(key=lambda sample: os.path.relpath(sample[0], reader.root))
        kept += [samples[index] for index in fixed_share(len(samples), fraction)]
    reader.samples = kept
