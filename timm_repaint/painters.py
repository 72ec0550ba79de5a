"""Painters without a network, and the choice between them and the learned `Repainter`.

They cost next to nothing and learn nothing: the controls that a learned generator has to beat.
"""

from typing import Any

import torch
from torch import Tensor, nn

from timm_repaint.networks.label_maps import (
    DETAILS,
    SEGMENT_SLOTS,
    check_choice,
    draw_detail,
    draw_normal,
    find_shapes,
    paint_segments,
    pool_segments,
)
from timm_repaint.repainter import Repainted, Repainter, check_inputs

# Standard deviation of the shift that all pixels of a segment share, on the scale of [-1, 1].
PAINTERS = {'mean': 0.0, 'jitter': 0.4, 'shift': 0.4}


class SegmentPainter(nn.Module):
    """Each segment in its mean colour or with its detail, plus a random shift a segment and channel: sharp shapes.

    Args:
        generator: a key of `PAINTERS`: 'mean' (no shift, flat), 'jitter' (flat) or 'shift' (with detail).
        num_labels: number of classes of semantic maps; None for segment maps. A class is one segment.
        detail: of 'shift': 'keep' (the image's own), 'swap' or 'none', as of `Repainter`.
    """

    def __init__(self, generator: str, num_labels: int | None = None, detail: str = 'keep') -> None:
        super().__init__()
        self.config: dict[str, Any] = {'generator': generator, 'num_labels': num_labels}
        self.detail = 'none'
        if generator == 'shift':
            self.detail = self.config['detail'] = check_choice('detail', detail, DETAILS)
        self.shift_std = PAINTERS[generator]

    def forward(self, image_pm1: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Repainted:
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
        shapes = find_shapes(labels)
        slots = shapes.slots
        colours, _ = pool_segments(image_pm1, slots)  # [B, 256, 3]
        shifts = draw_normal((len(labels), SEGMENT_SLOTS, 3), labels.device, generator)
        flat_pm1 = paint_segments((colours + self.shift_std * shifts).clamp(-1, 1), slots)
        detail = draw_detail(self.detail, image_pm1, slots, generator)
        return Repainted(flat_pm1 if detail is None else (flat_pm1 + detail).clamp(-1, 1), None, shapes)


AnyRepainter = Repainter | SegmentPainter


def create_repainter(config: dict[str, Any]) -> AnyRepainter:
    """A learned or a network-free repainter from its `config`, the keyword arguments of its class."""
    return SegmentPainter(**config) if config['generator'] in PAINTERS else Repainter(**config)
