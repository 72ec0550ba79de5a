"""What mask sources on a device have in common: they work on batches; a single image is a batch of one."""

import numpy as np
import torch
from torch import Tensor, nn

from timm_repaint.pictures import to_pm1


class DeviceMasks(nn.Module):
    """A mask source for batches, on any device; see `choice.MaskSource`."""

    kind: str
    num_labels: int | None
    on_device: bool = True
    here: Tensor  # empty; it is where the source was moved to, also of one without weights

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('here', torch.empty(0), persistent=False)

    @torch.no_grad()
    def labels(self, image_pm1: Tensor) -> Tensor:
        """The label maps of a batch.

        Args:
            image_pm1: [B, 3, H, W] float in [-1, 1], any H and W, on the source's device.

        Returns:
            [B, H, W] int64.

        Raises:
            ValueError: if image_pm1 is not [B, 3, H, W].
        """
        if image_pm1.ndim != 4 or image_pm1.shape[1] != 3:
            raise ValueError(f'{type(self).__name__} needs RGB images [B, 3, H, W], got {tuple(image_pm1.shape)}')
        return self.cut(image_pm1.float())

    def cut(self, image_pm1: Tensor) -> Tensor:
        """[B, 3, H, W] float32 in [-1, 1] -> label maps [B, H, W] int64."""
        raise NotImplementedError

    def forward(self, image_u8: np.ndarray) -> np.ndarray:
        """The label map [H, W] uint16 of one image [H, W, 3] uint8, RGB, as other mask sources give it.

        Raises:
            ValueError: if image_u8 is not [H, W, 3] uint8.
        """
        check_image(image_u8, type(self).__name__)
        return self.labels(to_pm1([image_u8], self.here.device))[0].cpu().numpy().astype(np.uint16)


def check_image(image_u8: np.ndarray, source: str) -> None:
    """Refuse an image that is not [H, W, 3] uint8, with the name of the mask source."""
    if image_u8.ndim != 3 or image_u8.shape[2] != 3 or image_u8.dtype != np.uint8:
        raise ValueError(f'{source} needs an RGB image [H, W, 3] uint8, got {image_u8.shape} {image_u8.dtype}')
