"""A share of the training images, the same ones for every run (`--train-fraction`)."""

import os
from typing import Any

import numpy as np

from timm_repaint.data.stored import has_files
from timm_repaint.errors import UsageError


def keep_fraction(dataset: Any, fraction: float) -> None:
    """Leave the share `fraction` of each class's images in the data set, at least one.

    A fixed shuffle of each class decides, whatever the run's seed; a smaller share is a part of a larger one.

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
        order = np.random.default_rng(0).permutation(len(samples))
        count = max(1, round(fraction * len(samples)))
        kept += [samples[index] for index in sorted(order[:count])]
    reader.samples = kept
