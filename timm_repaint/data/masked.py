"""Image and mask through timm's loader: the label map rides along as one more channel of the image tensor.

timm's collate functions and its prefetcher pass one tensor an image, so an image with its mask is [4, H, W] = red,
green, blue, label modulo 256. Classes end at 255 (unknown), and the networks give segments whose ids are a multiple of
256 apart one latent anyway (`networks/label_maps.py`). A byte is exact in every dtype the loader may convert to,
bfloat16 included.

    loader = create_loader(dataset, ...)
    add_masks(loader.dataset, source, mean, std)
    extend_normalization(loader)
    for batch, target in loader:
        image_norm, labels = batch[:, :3], batch[:, 3]
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from timm.data.loader import PrefetchLoader
from timm.data.mixup import FastCollateMixup
from timm.data.scheduled_sampler import ScheduledTransformDataset
from torchvision.transforms import Normalize, v2

from timm_repaint.batches import FEW, IMAGE_CHANNELS, share_outside
from timm_repaint.config import plain_numbers
from timm_repaint.errors import UsageError
from timm_repaint.masks.choice import MaskSource, find_cpu_source


class WithMask:
    """A transform followed by its mask: PIL image to image and label map, [4, H, W].

    The mask is computed from the finished picture, after crop, flip and colour augmentation, so it fits pixel by pixel.

    Args:
        transform: PIL image to [3, H, W], uint8 (tensor or numpy, 0 to 255: timm's prefetcher) or float tensor
            normalised with mean and std (without the prefetcher).
        mask_source: [H, W, 3] uint8 to [H, W] label map, any ids.
        mean: mean a channel on the [0, 1] scale, used to undo the normalisation of float images.
        std: standard deviation a channel on the [0, 1] scale.

    Raises:
        ValueError: if mean and std are not three values each.
    """

    def __init__(
        self, transform: Callable, mask_source: MaskSource, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        if len(mean) != IMAGE_CHANNELS or len(std) != IMAGE_CHANNELS:
            raise ValueError(f'masks need the mean and std of an RGB image, got {tuple(mean)} and {tuple(std)}')
        self.transform = transform
        self.mask_source = mask_source
        self.mean = torch.as_tensor(mean, dtype=torch.float32).clone().view(-1, 1, 1)
        self.std = torch.as_tensor(std, dtype=torch.float32).clone().view(-1, 1, 1)

    def __call__(self, picture: Any) -> torch.Tensor:
        """Transforms one picture.

        Returns:
            [4, H, W], uint8 or float32 like the transform's image: three image channels, labels.

        Raises:
            ValueError: if the transform yields no three channels, or the mask's size differs from the image's.
        """
        image = check_rgb(self.transform(picture))  # [3, H, W]
        labels = self.mask_source(self._to_u8(image).permute(1, 2, 0).contiguous().numpy())  # [H, W]
        return append_labels(image, labels)

    def _to_u8(self, image: torch.Tensor) -> torch.Tensor:
        if image.dtype == torch.uint8:
            return image
        pixels = image * self.std + self.mean
        if share_outside(pixels) > FEW:
            raise UsageError(
                f'with the mean {self.mean.flatten().tolist()} and std {self.std.flatten().tolist()} pixels reach from '
                f'{pixels.min():.3g} to {pixels.max():.3g}; they must be in [0, 1]: give with_masks the mean and std '
                'of the transform'
            )
        return pixels.mul(255).round().clamp(0, 255).to(torch.uint8)


def with_masks(
    transform: Callable[[Any], Any],
    masks: Any = 'fh',
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> WithMask:
    """A transform whose images come with their label maps, cut in the workers of the `DataLoader`.

        dataset = ImageFolder(root, with_masks(transform, masks='fh'))    # [4, H, W] an image, for repaint(images)

    Args:
        transform: Picture to [3, H, W]: uint8, or float, in [0, 1] or normalised.
        masks: 'fh', 'superpixels' (faster by 4 times and more) or a mask source that works on the CPU.
        mean: With which float images were normalised; None: of the `Normalize` in the transform, if there is one.
        std: The same.

    Raises:
        UsageError: a ValueError; if the source works on the device.
    """
    source = find_cpu_source(masks)
    if (mean is None) != (std is None):
        raise UsageError('with_masks got one of mean and std; give both, or none')
    if mean is None or std is None:
        steps = _normalizations(transform)
        mean, std = (steps[-1].mean, steps[-1].std) if steps else ((0.0,) * 3, (1.0,) * 3)
    return WithMask(transform, source, plain_numbers(mean), plain_numbers(std))


def _normalizations(transform: Any) -> list[Any]:
    """All `Normalize` in a transform, those in transforms within it too, in their order."""
    if isinstance(transform, (Normalize, v2.Normalize)):
        return [transform]
    return [found for part in getattr(transform, 'transforms', []) for found in _normalizations(part)]


def check_rgb(image: Any) -> torch.Tensor:
    """The image as a tensor, if it is [3, H, W].

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(image, (torch.Tensor, np.ndarray)):
        raise UsageError(
            f'the transform gave a {type(image).__name__}; masks need a tensor or array [3, H, W]: end it with ToTensor'
        )
    image = torch.as_tensor(image)
    if image.ndim != 3 or image.shape[0] != IMAGE_CHANNELS:
        raise UsageError(f'masks need RGB images [3, H, W] from the transform, got {tuple(image.shape)}')
    return image


def append_labels(image: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Image [3, H, W] and labels [H, W] to [4, H, W] of the image's dtype: image, labels modulo 256.

    Raises:
        ValueError: if the sizes differ.
    """
    if labels.shape != tuple(image.shape[1:]):
        raise UsageError(f'mask is {labels.shape}, its image is {tuple(image.shape[1:])}')
    joined = image.new_empty((IMAGE_CHANNELS + 1, *labels.shape))
    joined[:IMAGE_CHANNELS] = image
    joined[IMAGE_CHANNELS] = torch.from_numpy(labels.astype(np.uint8))  # wraps
    return joined


def add_masks(dataset: Any, mask_source: MaskSource, mean: Sequence[float], std: Sequence[float]) -> None:
    """Makes a data set yield [4, H, W] tensors, by wrapping the transform that create_loader gave it.

    Works for timm's map-style and iterable data sets, torchvision's and those of scheduled image sizes. Call it on
    loader.dataset before the first iteration: loader workers copy the data set when they start.

    Args:
        dataset: loader.dataset of a timm loader.
        mask_source: see WithMask.
        mean: see WithMask.
        std: see WithMask.

    Raises:
        ValueError: if the data set has no transform to wrap.
    """
    if isinstance(dataset, ScheduledTransformDataset):
        dataset.transforms = tuple(WithMask(transform, mask_source, mean, std) for transform in dataset.transforms)
        return
    if not callable(getattr(dataset, 'transform', None)):
        raise ValueError(f'{type(dataset).__name__} has no transform; call add_masks after timm.data.create_loader')
    dataset.transform = WithMask(dataset.transform, mask_source, mean, std)


def extend_normalization(loader: Any) -> None:
    """Lets the label channel pass timm's prefetcher unchanged: mean 0, std 1. Leaves other loaders alone.

    Args:
        loader: a loader of timm.data.create_loader; a PrefetchLoader's mean and std become [1, 4, 1, 1].

    Raises:
        ValueError: if the loader would change pixels and labels together, by mixing or random erasing.
    """
    if not isinstance(loader, PrefetchLoader):
        return
    if loader.random_erasing is not None or isinstance(loader.loader.collate_fn, FastCollateMixup):
        raise ValueError('the loader erases or mixes images, labels included; do both on the device, after the repaint')
    if loader.mean.shape[1] != IMAGE_CHANNELS:
        raise ValueError(f'the loader normalises {loader.mean.shape[1]} channels, {IMAGE_CHANNELS} expected')
    shape = (1, 1, 1, 1)
    loader.mean = torch.cat([loader.mean, loader.mean.new_zeros(shape)], dim=1)
    loader.std = torch.cat([loader.std, loader.std.new_ones(shape)], dim=1)
