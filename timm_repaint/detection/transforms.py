"""Image, boxes and mask move together: torchvision's transforms, from a picture to a square image.

Training: a random scale, a random place in (or around) the square, flips; validation: the longer side fills the square,
the image stays in its upper left corner. What is outside the image has the mean colour of normalisation, and label 0 of
a mask that counts its own labels from 1 (`data/stored.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from timm_repaint.data.replay import OUTSIDE

MIN_BOX_PX = 1.0  # of what a crop leaves of a box

Transform = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Moved:
    """An image after a transform, with what moved along.

    Attributes:
        image: [3, S, S] uint8.
        boxes: x0, y0, x1, y1 in pixels of the image, [n, 4] float32.
        classes: [n] int64.
        labels: [S, S] like the mask that went in; None without one.
    """

    image: Tensor
    boxes: Tensor
    classes: Tensor
    labels: np.ndarray | None


@dataclass(frozen=True)
class Augmentation:
    """How much training changes images.

    Attributes:
        scale_jitter: Least and greatest factor, on the scale at which the image just fits the square.
        hflip: Probability of a left-right flip.
        vflip: Probability of an upside-down flip.
        color_jitter: Strength for brightness, contrast and saturation, as timm's option; 0: none.
    """

    scale_jitter: Sequence[float] = (0.1, 2.0)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0


def train_transform(
    size_px: int, mean: Sequence[float], strength: Augmentation = Augmentation(), interpolation: str = 'bilinear'
) -> Transform:
    """The augmentation of EfficientDet: scale jitter, crop or pad to the square, flip.

    Args:
        size_px: S.
        mean: Colour outside the image, three values in [0, 1].
        strength: How much is changed.
        interpolation: Of the image; masks are never mixed.
    """
    steps: list[Any] = [
        AlignedScaleJitter((size_px, size_px), tuple(strength.scale_jitter), InterpolationMode(interpolation)),
        v2.RandomCrop((size_px, size_px), pad_if_needed=True, fill=_outside(mean)),
        v2.RandomHorizontalFlip(strength.hflip),
        v2.RandomVerticalFlip(strength.vflip),
    ]
    if strength.color_jitter:
        steps.append(v2.ColorJitter(*[strength.color_jitter] * 3))
    return v2.Compose([*steps, v2.ClampBoundingBoxes(), _drop_empty_boxes()])


def eval_transform(size_px: int, mean: Sequence[float], interpolation: str = 'bilinear') -> Transform:
    """Nothing random: see `fit_scale` for the size of the image in the square."""
    return v2.Compose([FitSquare(size_px, mean, interpolation), _drop_empty_boxes()])


def _drop_empty_boxes() -> v2.SanitizeBoundingBoxes:
    return SanitizeBoxesAlone(min_size=MIN_BOX_PX, labels_getter=itemgetter('classes'))


class SanitizeBoxesAlone(v2.SanitizeBoundingBoxes):
    """torchvision's, which would take a label map of as many rows as there are boxes for a mask a box."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt if isinstance(inpt, tv_tensors.Mask) else super().transform(inpt, params)


class AlignedScaleJitter(v2.ScaleJitter):
    """torchvision's, with masks that stay in line, see `resize`, and narrow images of a pixel or more."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return resize(inpt, [max(1, side) for side in params['size']], self.interpolation)


def resize(value: Any, size_hw: Sequence[int], interpolation: InterpolationMode) -> Any:
    """Resize an image, boxes or a mask.

    torchvision samples masks by `nearest`, which takes the upper left of the pixels that one becomes: half of such a
    pixel beside the image. `nearest-exact` takes the middle one.
    """
    if not isinstance(value, tv_tensors.Mask):
        return functional.resize(value, list(size_hw), interpolation)
    labels = value.as_subclass(Tensor)[None].float()  # whole numbers up to 2^24 are exact
    resized = functional.resize_image(labels, list(size_hw), InterpolationMode.NEAREST_EXACT)[0]
    return tv_tensors.wrap(resized.to(value.dtype), like=value)


class FitSquare:
    """Resizes until the longer side is `size_px`, and fills the rest, to the right and below.

    Args:
        size_px: S.
        mean: Colour outside the image, three values in [0, 1].
        interpolation: Of the image.
    """

    def __init__(self, size_px: int, mean: Sequence[float], interpolation: str) -> None:
        self.size_px, self.fill = size_px, _outside(mean)
        self.interpolation = InterpolationMode(interpolation)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        height, width = sample['image'].shape[-2:]
        new_hw = fit_scale((height, width), self.size_px)[1]
        padding = [0, 0, self.size_px - new_hw[1], self.size_px - new_hw[0]]
        moved = dict(sample)
        for name in sample.keys() - {'classes'}:
            resized = resize(sample[name], new_hw, self.interpolation)
            moved[name] = functional.pad(resized, padding, fill=self.fill.get(type(resized), 0))
        return moved


def fit_scale(image_hw: Sequence[int], size_px: int) -> tuple[float, tuple[int, int]]:
    """The factor that brings the longer side to `size_px`, and the height and width that it gives."""
    scale = size_px / max(image_hw)
    height, width = (min(size_px, max(1, round(side * scale))) for side in image_hw)
    return scale, (height, width)


def move(
    transform: Transform, picture: Image.Image, boxes: np.ndarray, classes: np.ndarray, labels: np.ndarray | None
) -> Moved:
    """Transform an image with its boxes and its mask.

    Args:
        transform: See `train_transform` and `eval_transform`.
        picture: RGB.
        boxes: x0, y0, x1, y1, [n, 4] float32.
        classes: [n] int64.
        labels: Label map [H, W] of the picture's size, 0 for what is outside; None: without.
    """
    canvas_hw = (picture.height, picture.width)
    sample: dict[str, Any] = {
        'image': tv_tensors.Image(picture),
        'boxes': tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format='XYXY', canvas_size=canvas_hw),  # type: ignore[call-overload]
        'classes': torch.from_numpy(classes),
    }
    if labels is not None:
        sample['mask'] = tv_tensors.Mask(torch.from_numpy(labels.astype(np.int32)))
    sample = transform(sample)
    moved = None if labels is None else sample['mask'].numpy().astype(labels.dtype)
    image, boxes_moved = (sample[name].as_subclass(Tensor) for name in ('image', 'boxes'))
    return Moved(image, boxes_moved, sample['classes'], moved)


def _outside(mean: Sequence[float]) -> dict[Any, Any]:
    """What fills the space around an image and its mask."""
    return {tv_tensors.Image: [round(255 * value) for value in mean], tv_tensors.Mask: OUTSIDE}
