"""CutOut: a square of each image is blanked (DeVries and Taylor, 2017)."""

from collections.abc import Callable

import torch
from torch import Tensor


class CutOut:
    """Blanks a square around a random pixel of each image; what lies outside the image is cut off.

    Args:
        side_px: Side of the square.
        before: What is applied to the batch ahead of it, such as random erasing.
    """

    def __init__(self, side_px: int, before: Callable[[Tensor], Tensor] | None = None) -> None:
        self.side_px = side_px
        self.before = before

    def __call__(self, image_norm: Tensor) -> Tensor:
        """Batch [B, C, H, W] of normalised images -> the same with squares of 0, the mean colour."""
        if self.before is not None:
            image_norm = self.before(image_norm)
        rows, columns = (self._inside(len(image_norm), size, image_norm.device) for size in image_norm.shape[-2:])
        hole = rows[:, None, :, None] & columns[:, None, None, :]  # [B, 1, H, W]
        return image_norm.masked_fill(hole, 0.0)

    def _inside(self, count: int, size: int, device: torch.device) -> Tensor:
        """Whether each of `size` places is in the square, along one axis of `count` images: [B, size] bool."""
        first = torch.randint(size, (count, 1), device=device) - self.side_px // 2
        places = torch.arange(size, device=device)
        return (places >= first) & (places < first + self.side_px)
