"""Which images of a batch are repainted, and their targets."""

import copy
from typing import Any

import torch
from torch import Tensor

from timm_repaint.errors import UsageError

IMAGE_CHANNELS = 3
LABEL_MAX = 255  # of label maps in the fourth channel
# Pixels of normalised images, brought back to [0, 1], may lie so far outside: resizing overshoots.
OVERSHOOT = 0.5
FEW = 0.05


def num_repaints(batch_size: int, prob: float) -> int:
    """Images of a batch that are repainted: an even number if it can be, as MixUp pairs what the network sees."""
    count = round(prob * batch_size)
    if batch_size % 2 == 0:
        count -= count % 2
    return min(max(count, 2), batch_size)


def check_target(target: Any, batch_size: int) -> None:
    """Stop at a target that does not belong to the images.

    Args:
        target: A tensor, a tuple or dict of such with the batch first, or a list (or tuple of others than tensors) of
            an entry an image.
        batch_size: Images.

    Raises:
        UsageError: if it is of another kind or length.
    """
    if isinstance(target, dict) or (isinstance(target, tuple) and not is_list(target)):
        for value in target.values() if isinstance(target, dict) else target:
            check_target(value, batch_size)
    elif not (is_list(target) or isinstance(target, Tensor)):
        raise UsageError(
            f'the target is a {type(target).__name__}; it must be a tensor, a tuple or dict of tensors with the batch '
            'first, or a list of one entry an image'
        )
    elif (0 if isinstance(target, Tensor) and not target.ndim else len(target)) != batch_size:
        shape = tuple(target.shape) if isinstance(target, Tensor) else f'a {type(target).__name__} of {len(target)}'
        raise UsageError(f'the target has {shape} for {batch_size} images; it must have one entry an image')


def is_list(target: Any) -> bool:
    """Whether a target is one entry an image, of any kind: a list, or a tuple of others than tensors."""
    return isinstance(target, list) or (
        isinstance(target, tuple) and not any(isinstance(value, Tensor) for value in target)
    )


def _with_values(target: dict[Any, Any], values: dict[Any, Any]) -> dict[Any, Any]:
    """A dictionary of the same class, whose constructor may want more than values."""
    new = copy.copy(target)
    new.update(values)
    return new


def pick(target: Any, count: int) -> Any:
    """The first entries of a target that has passed `check_target`."""
    if isinstance(target, Tensor) or is_list(target):
        return target[:count]
    if isinstance(target, dict):
        return _with_values(target, {key: pick(value, count) for key, value in target.items()})
    parts = [pick(value, count) for value in target]
    return type(target)(*parts) if hasattr(target, '_fields') else type(target)(parts)


def join(first: Any, second: Any) -> Any:
    """Two targets of one kind, one behind the other."""
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    if isinstance(first, dict):
        return _with_values(first, {key: join(value, second[key]) for key, value in first.items()})
    if is_list(first):
        return copy.deepcopy(first) + second  # an image's entry and its repaint's are two
    parts = [join(a, b) for a, b in zip(first, second, strict=True)]
    return type(first)(*parts) if hasattr(first, '_fields') else type(first)(parts)


def split_labels(images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The images of a batch without the label map that may be their fourth channel, and that label map.

    Args:
        images: [B, 3, H, W], or [B, 4, H, W] with whole numbers 0 to 255 in the fourth channel.
        labels: [B, H, W] whole numbers, or None.

    Returns:
        [B, 3, H, W]; [B, H, W] uint8 or int64, or None.

    Raises:
        UsageError: if the shapes do not fit.
    """
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] not in (IMAGE_CHANNELS, IMAGE_CHANNELS + 1):
        raise UsageError(
            f'the images are {shape}; repainting needs RGB, [B, 3, H, W], or [B, 4, H, W] with label maps as fourth '
            'channel'
        )
    if not len(images):
        raise UsageError('the batch has no images; leave it out')
    if images.requires_grad:
        raise UsageError('the images require a gradient; nothing may learn ahead of Repaint: give images.detach()')
    if not images.is_floating_point():
        raise UsageError(f'the images are {images.dtype}; they must be floating point, normalised with mean and std')
    if shape[1] > IMAGE_CHANNELS:
        if labels is not None:
            raise UsageError(f'the images are {shape}, with label maps as fourth channel; leave labels out')
        return images[:, :IMAGE_CHANNELS], images[:, IMAGE_CHANNELS].to(torch.uint8)  # see `check_labels`
    if labels is None:
        return images, None
    if labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    wanted = (shape[0], *shape[2:])
    if tuple(labels.shape) != wanted:
        raise UsageError(f'the label maps are {tuple(labels.shape)}; the images need {wanted}')
    return images, labels if labels.dtype == torch.uint8 else labels.long()


def check_range(image_pm1: Tensor) -> None:
    """Stop at images that cannot have been normalised with the mean and std: the host waits for their extremes.

    Single pixels may lie further out: random erasing fills them with noise.

    Args:
        image_pm1: [B, 3, H, W], what mean and std make of the images; in [-1, 1] if they are right.

    Raises:
        UsageError: saying what was got and wanted.
    """
    pixels = (image_pm1 + 1) / 2
    if share_outside(pixels) > FEW:
        low, high = (value.item() for value in torch.aminmax(pixels))
        raise UsageError(
            f'the images, brought back by mean and std, reach from {low:.3g} to {high:.3g}; they must lie in [0, 1]: '
            'give images that were divided by 255 and normalised with the same mean and std as here'
        )


def share_outside(pixels: Tensor) -> float:
    """Share of values that cannot be those of an image in [0, 1], nan among them; the host waits for it."""
    return 1 - ((pixels >= -OVERSHOOT) & (pixels <= 1 + OVERSHOOT)).float().mean().item()


def check_labels(labels: Tensor, num_labels: int | None, in_channel: bool) -> None:
    """Stop at values that cannot be label maps; the host waits for them.

    Args:
        labels: [B, H, W] as they were given.
        num_labels: Classes of semantic maps; None: segments.
        in_channel: Whether they came as the images' fourth channel, of which a byte is kept.

    Raises:
        UsageError: if they are no whole numbers, a byte does not hold them, or no pixel has a known class.
    """
    least, most = (value.item() for value in labels.aminmax()) if in_channel else (0, 0)
    if least < 0 or most > LABEL_MAX:
        raise UsageError(
            f'the label maps in the fourth channel go from {least:g} to {most:g}; they must be from 0 to {LABEL_MAX}: '
            'give labels modulo 256, as with_masks does, or repaint(images, labels=labels)'
        )
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise UsageError(
            'the label maps are no whole numbers; give segment or class ids, and mix or resize images behind Repaint'
        )
    if num_labels is not None and not bool(((labels >= 0) & (labels < num_labels)).any()):
        raise UsageError(f'no pixel of the label maps has a class from 0 to {num_labels - 1}; are they of another set?')


def lay_out_like(batch: Tensor, images: Tensor) -> Tensor:
    """A batch with channels innermost in memory if images [B, 3, H, W] have, or had before label maps were cut off."""
    last = images.stride(1) == 1 and images.shape[3] > 1
    return batch.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def finite_or_original(repaint_pm1: Tensor, image_pm1: Tensor) -> Tensor:
    """The repaints, but the original for one that is not finite: T, which has no guard, would be lost for good.

    D still sees such a repaint, so its update is skipped and counted.
    """
    largest = torch.linalg.vector_norm(repaint_pm1, float('inf'), dim=(1, 2, 3), keepdim=True)  # nan if one is
    return torch.where(largest < float('inf'), repaint_pm1, image_pm1)
