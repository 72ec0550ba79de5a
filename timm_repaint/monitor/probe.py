"""Why repaint works or not, measured on fixed images: what repaints change, and whether they give the class away.

Two failures of co-training show here first: a generator that paints every image the same way each time, and one that
paints the class into the image, as it may learn from the task's gradient.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from timm_repaint.data.samples import Samples
from timm_repaint.networks.encoder import Posterior
from timm_repaint.networks.label_maps import segment_slots
from timm_repaint.repainter import Repainter

MIN_SEGMENT_PX = 16
COLOUR_DISTANCE = 0.1
TEXTURE_FACTOR = 1.5
FLAT_STD = 0.02
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
MAX_SEGMENTS = 2**16  # labels are uint16
STANDARD_ERRORS = 2


class Leak(NamedTuple):
    """T's top-1 on images it never saw and on their repaints, in percent.

    Attributes:
        original: On the images themselves.
        repaint: On their repaints.
        swapped: On repaints of the same shapes with the latents of other images.
        chance: Points by which `repaint` may exceed `original` by chance: two standard errors of paired proportions.
    """

    original: float
    repaint: float
    swapped: float
    chance: float


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Inside, the modules are in evaluation mode and no gradient is kept; afterwards each part is as it was."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def repaint_copies(
    repainter: nn.Module, samples: Samples, copies: int, draws: Generator, batch_size: int
) -> list[Tensor]:
    """Repaints of the samples, `copies` times [N, 3, H, W] float32 in [-1, 1], on the device of `draws`."""
    image_pm1, labels = samples.images_pm1.to(draws.device), samples.label_tensor.to(draws.device)
    order, back = mixed_order(len(labels))
    return [
        torch.cat([repainter(image_pm1[part], labels[part], draws).image_pm1 for part in order.split(batch_size)])[back]
        for _ in range(copies)
    ]


def mixed_order(count: int) -> tuple[Tensor, Tensor]:
    """An order for batches of all classes, as in training: folders come class by class; and the way back. [count]."""
    order = torch.randperm(count, generator=Generator().manual_seed(0))
    return order, order.argsort()


def measure_repaints(repainter: nn.Module, samples: Samples, draws: Generator, batch_size: int) -> dict[str, float]:
    """How repaints of the samples differ, from each other and from the originals.

    Returns:
        'diversity': mean absolute distance of two repaints of one image, pixels in [-1, 1]; 'distance': the same of
        repaint and original; 'changed_segments': see `changed_segments`, of one repaint an image.
    """
    first_pm1, second_pm1 = repaint_copies(repainter, samples, 2, draws, batch_size)
    image_pm1, labels = samples.images_pm1.to(draws.device), samples.label_tensor.to(draws.device)
    to_original = [(repaint_pm1 - image_pm1).abs().mean() for repaint_pm1 in (first_pm1, second_pm1)]
    return {
        'diversity': (first_pm1 - second_pm1).abs().mean().item(),
        'distance': torch.stack(to_original).mean().item(),
        'changed_segments': changed_segments(image_pm1, first_pm1, labels),
    }


def changed_segments(image_pm1: Tensor, repaint_pm1: Tensor, labels: Tensor) -> float:
    """Share of segments whose colour or texture really changed, over all images, in percent.

    Segments of 16 pixels or more count. A segment's colour has changed if its mean RGB value moved by more than 0.1
    (Euclidean distance, pixels in [0, 1]); its texture, if the standard deviation of its luminance grew or shrank by
    more than a factor of 1.5, unless it is below 0.02 before and after.

    Args:
        image_pm1: [B, 3, H, W] in [-1, 1].
        repaint_pm1: [B, 3, H, W] in [-1, 1].
        labels: [B, H, W] int64, 0..65535; in each image a label is a segment.
    Returns:
        0..100; nan if no segment counts.
    """
    images = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
    _, segments, sizes = torch.unique(labels + MAX_SEGMENTS * images, return_inverse=True, return_counts=True)
    colour, deviation = _segment_statistics(image_pm1, segments, sizes)
    new_colour, new_deviation = _segment_statistics(repaint_pm1, segments, sizes)
    recoloured = (new_colour - colour).norm(dim=1) > COLOUR_DISTANCE  # [S]
    low, high = torch.minimum(deviation, new_deviation), torch.maximum(deviation, new_deviation)
    retextured = (high > TEXTURE_FACTOR * low) & (high >= FLAT_STD)
    changed = (recoloured | retextured)[sizes >= MIN_SEGMENT_PX]
    return percent(changed)


def _segment_statistics(image_pm1: Tensor, segments: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean RGB value, [S, 3], and standard deviation of the luminance, [S], of each segment, pixels in [0, 1]."""
    pixels = ((image_pm1.float() + 1) / 2).permute(0, 2, 3, 1).flatten(0, 2)  # [B*H*W, 3]
    index, weights = segments.flatten(), pixels.new_tensor(LUMINANCE)
    colour = pixels.new_zeros(len(sizes), 3).index_add(0, index, pixels) / sizes[:, None]
    squares = ((pixels - colour[index]) @ weights).square()
    return colour, (pixels.new_zeros(len(sizes)).index_add(0, index, squares) / sizes).sqrt()


def probe_leak(
    repainter: nn.Module,
    find_hits: Callable[[Tensor], Tensor],
    samples: Samples,
    draws: Generator,
    batch_size: int,
) -> Leak:
    """T's accuracy on images it never saw, on their repaints, and on repaints with the latents of other images.

    If T does better on repaints than on the originals, E and G tell it the class; if it does not with the latents of
    other images, they tell it by the latents. The other image is the one half the set away: of another class, in a set
    in the order of its classes.

    Args:
        repainter: E and G; for painters without latents 'swapped' is nan.
        find_hits: Where T is right: the samples or repaints of them, [N, 3, H, W] in [-1, 1] -> [M] bool, a value an
            image for a classifier, a value an object for a detector.
        samples: Images that T never saw.
        draws: Source of the random numbers, on the device of the networks.
        batch_size: Images that are looked at together.
    """
    image_pm1, labels = samples.images_pm1.to(draws.device), samples.label_tensor.to(draws.device)
    (repaint_pm1,) = repaint_copies(repainter, samples, 1, draws, batch_size)
    original, repaint = find_hits(image_pm1), find_hits(repaint_pm1)  # [M] bool
    swapped = math.nan
    if isinstance(repainter, Repainter):
        swapped = percent(find_hits(repaint_swapped(repainter, image_pm1, labels, draws, batch_size)))
    return Leak(percent(original), percent(repaint), swapped, chance_gain(original, repaint))


def percent(hits: Tensor) -> float:
    """Share of True, [N] bool, in percent; nan of none."""
    return 100 * hits.float().mean().item()


def chance_gain(before: Tensor, after: Tensor) -> float:
    """Points that hits [N] bool on the same images may gain by chance; nan where there is nothing to hit.

    Two standard errors if no change is for the better. The standard error is McNemar's (Psychometrika 1947): images hit
    once only are hit before or after alike.
    """
    if not len(before):
        return math.nan
    return 100 * STANDARD_ERRORS * math.sqrt((before != after).sum().item()) / len(before)


def repaint_swapped(
    repainter: Repainter, image_pm1: Tensor, labels: Tensor, draws: Generator, batch_size: int
) -> Tensor:
    """Repaints [N, 3, H, W] of the images' shapes, each with the latents of the image half the set away."""
    half = len(labels) // 2
    order, back = mixed_order(len(labels))
    tensors = [tensor[order] for tensor in (image_pm1, labels, image_pm1.roll(half, 0), labels.roll(half, 0))]
    repaints_pm1 = []
    for own_pm1, own_labels, other_pm1, other_labels in zip(*(t.split(batch_size) for t in tensors), strict=True):
        own = repainter.encoder(own_pm1, segment_slots(own_labels))
        foreign = repainter.encoder(other_pm1, segment_slots(other_labels))
        repaints_pm1.append(repainter.paint(own_pm1, swap_latents(own, foreign), own_labels, draws))
    return torch.cat(repaints_pm1)[back]


def swap_latents(own: Posterior, foreign: Posterior) -> Posterior:
    """The latents of other images, with their segments' in the slots of one's own.

    Segments have other slots in the other image: an image's first segment gets the latent of the other's first, and so
    on; an image with more segments than the other begins again.
    """
    if own.segment_present is None or foreign.segment_present is None:
        return foreign
    assert foreign.segment_mu is not None and foreign.segment_logvar is not None
    slots = paired_slots(own.segment_present, foreign.segment_present).unsqueeze(2)  # [B, 256, 1]
    index = slots.expand_as(foreign.segment_mu)
    return foreign._replace(
        segment_mu=foreign.segment_mu.gather(1, index),
        segment_logvar=foreign.segment_logvar.gather(1, index),
        segment_present=own.segment_present,
    )


def paired_slots(present: Tensor, other_present: Tensor) -> Tensor:
    """For each slot of an image, a slot that is present in the other image.

    The k-th present slot gets the k-th of the other image, cyclic. A slot that is not present (its segment is too
    small for the encoder's copy of the image) gets the same as the present one ahead of it.

    Args:
        present: [B, S] bool.
        other_present: [B, S] bool, at least one True an image.
    Returns:
        [B, S] int64.
    """
    rank = (present.cumsum(dim=1) - 1).clamp(min=0)  # [B, S]
    in_order = other_present.byte().argsort(dim=1, descending=True, stable=True)  # present slots first
    return in_order.gather(1, rank % other_present.sum(dim=1, keepdim=True))
