"""How a label map follows its image through timm's training transform.

The label map, brought to its image's size, goes first, through the steps of the image's transform that move pixels,
with nearest-neighbour sampling; those that only change colours are left out. Then the random generators are set back,
and the image goes through its transform. Both draw the same numbers, so both are cropped, flipped and turned alike, and
the generators end where the image leaves them: a run with stored masks sees the same images as a run without.

A label picture is a PIL picture of label + 1, and 0 where a step brought in pixels from outside the image. Its mode is
'L' (8 bits), or 'I' if the labels need more.
"""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data import transforms as timm_transforms
from torchvision import transforms

from timm_repaint.errors import UsageError

OUTSIDE = 0
Step = Callable[[Image.Image], Image.Image]
NEAREST = Image.Resampling.NEAREST

COLOUR_TRANSFORMS = (
    *(transforms.ColorJitter, transforms.RandomGrayscale, transforms.GaussianBlur, transforms.Normalize),
    *(timm_transforms.MaybeToTensor, timm_transforms.MaybePILToTensor),
)
RESIZES = (timm_transforms.RandomResizedCropAndInterpolation, timm_transforms.ResizeKeepRatio, transforms.Resize)
FLIPS_AND_CROPS = (transforms.RandomHorizontalFlip, transforms.RandomVerticalFlip, transforms.CenterCrop)
MOVING_OPS = frozenset(['Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'TranslateXRel', 'TranslateYRel'])
COLOUR_OPS = frozenset(
    ['AutoContrast', 'Equalize', 'Invert', 'SolarizeAdd', 'Desaturate', 'GaussianBlur', 'GaussianBlurRand']
    + ['Posterize', 'PosterizeIncreasing', 'PosterizeOriginal', 'Solarize', 'SolarizeIncreasing']
    + [name + rise for name in ('Color', 'Contrast', 'Brightness', 'Sharpness') for rise in ('', 'Increasing')]
)


class Replay:
    """An image transform of timm's, and the same for the label map.

    Args:
        transform: what timm.data.create_transform returns for training.

    Raises:
        UsageError: if it holds a step whose effect on a label map is not known.
    """

    def __init__(self, transform: transforms.Compose) -> None:
        self.transform = transform
        self.steps = _moving_steps(transform.transforms)
        # NumPy's state is slow to copy, and only these draw from it.
        numpy_users = (auto_augment.RandAugment, AugMixLabels)
        self._uses_numpy = any(isinstance(step, numpy_users) for step in self.steps)

    def __call__(self, picture: Image.Image, labels: np.ndarray) -> tuple[Any, np.ndarray]:
        """Transforms an image and its mask alike.

        Args:
            picture: the image.
            labels: its label map at any size, [h, w] integers, 0 to 65535.

        Returns:
            The transform's image, and label + 1 (0 outside the image) of its pixels, [H, W] uint8 or int32.
        """
        before = self._random_state()
        moved = self._move(labels, picture)
        self._set_random_state(before)
        return self.transform(picture), moved

    def _move(self, labels: np.ndarray, picture: Image.Image) -> np.ndarray:
        moved = label_picture(labels)
        if moved.size != picture.size:
            moved = moved.resize(picture.size, NEAREST)
        for step in self.steps:
            moved = step(moved)
        return np.asarray(moved)

    def _random_state(self) -> tuple[Any, ...]:
        return random.getstate(), torch.get_rng_state(), np.random.get_state() if self._uses_numpy else None

    def _set_random_state(self, state: tuple[Any, ...]) -> None:
        random.setstate(state[0])
        torch.set_rng_state(state[1])
        if self._uses_numpy:
            np.random.set_state(state[2])


def label_picture(labels: np.ndarray) -> Image.Image:
    """Labels [h, w], 0 to 65535, plus 1, as a picture of mode 'L' if that is enough, else 'I'."""
    dtype = np.uint8 if labels.max(initial=0) < 255 else np.int32  # bytes are four times faster to move
    return Image.fromarray(np.add(labels, 1, dtype=dtype, casting='unsafe'))


def _moving_steps(every: list[Any]) -> list[Step]:
    """The steps that move pixels, made for label pictures. Colours come last in timm's lists, so their draws do too."""
    steps: list[Step] = []
    colour = None
    for transform in every:
        if _is_colour(transform):
            colour = transform
        elif colour is not None:
            raise _not_known(transform, f' after {type(colour).__name__}')
        else:
            steps.append(_for_labels(transform))
    return steps


def _is_colour(transform: Any) -> bool:
    if type(transform) is transforms.RandomApply:
        return all(_is_colour(inner) for inner in transform.transforms)
    return type(transform) in COLOUR_TRANSFORMS


def _for_labels(transform: Any) -> Step:
    """A step of timm's, as it is or as a copy that samples the nearest label."""
    if type(transform) in FLIPS_AND_CROPS:
        return transform
    step = copy.copy(transform)
    if type(transform) in RESIZES:
        step.interpolation = _nearest(transform.interpolation, transforms.InterpolationMode.NEAREST)
    elif type(transform) in (timm_transforms.CenterCropOrPad, timm_transforms.RandomCropOrPad):
        step.fill = OUTSIDE
    elif type(transform) is auto_augment.RandAugment:
        step.ops = [_op_for_labels(op) for op in transform.ops]
    elif type(transform) is auto_augment.AutoAugment:
        step.policy = [[_op_for_labels(op) for op in ops] for ops in transform.policy]
    elif type(transform) is auto_augment.AugMixAugment:
        step = AugMixLabels(transform)
    else:
        raise _not_known(transform)
    return step


def _nearest(interpolation: Any, nearest: Any) -> Any:
    """Nearest in place of each of a step's interpolations, of which it draws one if there are several."""
    return (nearest,) * len(interpolation) if isinstance(interpolation, (tuple, list)) else nearest


def _op_for_labels(op: auto_augment.AugmentOp) -> auto_augment.AugmentOp:
    """An operation that draws like the original, moves labels like its pixels and leaves them alone otherwise."""
    step = copy.copy(op)
    if op.name in MOVING_OPS:
        step.kwargs = {**op.kwargs, 'resample': _nearest(op.kwargs['resample'], NEAREST), 'fillcolor': OUTSIDE}
    elif op.name in COLOUR_OPS:
        step.aug_fn = _draw_blur if op.name == 'GaussianBlurRand' else _leave
    else:
        raise _not_known(op, f' {op.name}')
    return step


def _leave(labels: Image.Image, *_: Any, **__: Any) -> Image.Image:
    return labels


def _draw_blur(labels: Image.Image, *_: Any, **__: Any) -> Image.Image:
    random.random()  # the blur's radius
    return labels


class AugMixLabels:
    """AugMix blends the image with several moved copies: the labels follow the one that shows most.

    Args:
        augmix: timm's AugMix.
    """

    def __init__(self, augmix: auto_augment.AugMixAugment) -> None:
        self.ops = [_op_for_labels(op) for op in augmix.ops]
        self.alpha, self.width, self.depth = augmix.alpha, augmix.width, augmix.depth

    def __call__(self, labels: Image.Image) -> Image.Image:
        shares = np.random.dirichlet([self.alpha] * self.width)
        mixed = np.random.beta(self.alpha, self.alpha)  # share of all copies together
        best, best_share = labels, 1 - mixed
        for share in shares:
            depth = self.depth if self.depth > 0 else np.random.randint(1, 4)
            moved = labels
            for op in np.random.choice(self.ops, depth, replace=True):  # type: ignore[arg-type]
                moved = op(moved)
            if mixed * share > best_share:
                best, best_share = moved, mixed * share
        return best


def _not_known(step: Any, detail: str = '') -> UsageError:
    return UsageError(
        f'stored masks cannot follow the transform {type(step).__name__}{detail}; leave it out, or leave out --mask-dir'
    )
