"""A small detector for tests, and targets for it."""

import effdet
import torch


def tiny_detector(num_classes=3, size_px=128, seed=0):
    """EfficientDet-D0 for small images, untrained."""
    torch.manual_seed(seed)
    return effdet.create_model(
        'tf_efficientdet_d0', num_classes=num_classes, pretrained_backbone=False, image_size=(size_px, size_px)
    )


def boxes_of(*objects):
    """Objects (y0, x0, y1, x1, class) of one image as a target, [1, N, 5]."""
    return torch.tensor([objects], dtype=torch.float32)
