"""Painters without a network, and the choice between them and the learned `Repainter`.

They cost next to nothing and learn nothing: the controls that a learned generator has to beat.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timm_repaint.networks import label_maps
from timm_repaint.networks.label_maps import Draws
from timm_repaint.repainter import Repainted, Repainter, check_inputs

# Standard deviation of the shift that all pixels of a segment share, on the scale of [-1, 1].
SHIFTS = {'mean': 0.0, 'jitter': 0.4, 'shift': 0.4, 'shift-randconv': 0.4}
RANDCONV = 'randconv'
PAINTERS = (*SHIFTS, RANDCONV)
FILTERED = 0.5  # share of the images that 'shift-randconv' filters after the shift
NO_DETAIL = ('mean', 'jitter', RANDCONV)  # they paint without the detail that could be swapped
KERNELS_PX = (1, 3, 5, 7)


class SegmentPainter(nn.Module):
    """Each segment in its mean colour or with its detail, plus a random shift a segment and channel: sharp shapes.

    Args:
        generator: one of `PAINTERS`: 'mean' (no shift, flat), 'jitter' (flat), 'shift' (with detail), 'shift-randconv'
            (that, and then every second image, at random, by `filter_at_random`) or 'randconv' (that filter alone,
            whatever the label map).
        num_labels: number of classes of semantic maps; None for segment maps. A class is one segment.
        detail: of 'shift' and 'shift-randconv': 'keep' (the image's own), 'swap' or 'none', as of `Repainter`.
    """

    def __init__(self, generator: str, num_labels: int | None = None, detail: str = 'keep') -> None:
        super().__init__()
        self.config: dict[str, Any] = {'generator': generator, 'num_labels': num_labels}
        self.detail = 'none'
        self.filters = generator.endswith(RANDCONV)
        if generator not in NO_DETAIL:
            self.detail = self.config['detail'] = label_maps.check_choice('detail', detail, label_maps.DETAILS)
        # None: the image is filtered as it is.
        self.shift_std = SHIFTS.get(label_maps.check_choice('painter', generator, PAINTERS))

    def forward(self, image_pm1: Tensor, labels: Tensor, generator: Draws = None) -> Repainted:
        """Repaint a batch.

        Args:
            image_pm1: [B, 3, H, W] in [-1, 1].
            labels: [B, H, W] int64, segment ids of any value or class ids.
            generator: source of the random numbers; None for the global one.
        Returns:
            The repaint, float32 in [-1, 1]; no posterior, as nothing is encoded.
        Raises:
            ValueError: if the image or the label map has a wrong shape.
        """
        check_inputs(image_pm1, labels)
        shapes = label_maps.find_shapes(labels)
        if self.shift_std is None:
            return Repainted(filter_at_random(image_pm1, generator), None, shapes)
        slots = shapes.slots
        colours, _ = label_maps.pool_segments(image_pm1, slots)  # [B, 256, 3]
        shifts = label_maps.draw_normal((len(labels), label_maps.SEGMENT_SLOTS, 3), labels.device, generator)
        flat_pm1 = label_maps.paint_segments((colours + self.shift_std * shifts).clamp(-1, 1), slots)
        detail = label_maps.draw_detail(self.detail, image_pm1, slots, generator)
        repaint_pm1 = flat_pm1 if detail is None else (flat_pm1 + detail).clamp(-1, 1)
        if self.filters:
            chosen = label_maps.draw_uniform((len(labels), 1, 1, 1), labels.device, generator) < FILTERED
            repaint_pm1 = torch.where(chosen, filter_at_random(repaint_pm1, generator), repaint_pm1)
        return Repainted(repaint_pm1, None, shapes)


def filter_at_random(image_pm1: Tensor, generator: Draws = None) -> Tensor:
    """Each image mixed with itself under a random filter: new colours and local texture, shapes as they are.

    An image's filter is drawn from N(0, 1 / (3 k^2)) for its size k, one of `KERNELS_PX`, and its share is uniform.

    Source: Xu, Liu, Yang, Raffel, Niethammer, "Robust and Generalizable Visual Representation Learning via Random
    Convolutions", ICLR 2021, section 3, with the mixing; the filter there is a batch's.

    Args:
        image_pm1: [B, 3, H, W] in [-1, 1].
        generator: source of the random numbers; None for the global one.
    Returns:
        [B, 3, H, W] float32 in [-1, 1].
    """
    batch, channels, height, width = image_pm1.shape
    device, largest = image_pm1.device, KERNELS_PX[-1]
    chosen, share = label_maps.draw_uniform((2, batch, 1, 1, 1), device, generator)
    size_px = 2 * (chosen * len(KERNELS_PX)).long().clamp(max=len(KERNELS_PX) - 1) + 1  # [B, 1, 1, 1]
    weights = label_maps.draw_normal((batch, channels, channels, largest, largest), device, generator)
    from_centre = (torch.arange(largest, device=device) - largest // 2).abs()
    inside = torch.maximum(from_centre[:, None], from_centre)[None, None] <= size_px // 2  # [B, 1, k, k]
    weights = weights * (inside / (channels**0.5 * size_px))[:, None]
    padded = F.pad(image_pm1.float(), (largest // 2,) * 4, mode='reflect')
    with torch.autocast(device.type, enabled=False):
        filtered = F.conv2d(padded.flatten(0, 1)[None], weights.flatten(0, 1), groups=batch)
    return torch.lerp(filtered.view(batch, channels, height, width), image_pm1.float(), share).clamp(-1, 1)


AnyRepainter = Repainter | SegmentPainter


def create_repainter(config: dict[str, Any]) -> AnyRepainter:
    """A learned or a network-free repainter from its `config`, the keyword arguments of its class."""
    return SegmentPainter(**config) if config['generator'] in PAINTERS else Repainter(**config)
