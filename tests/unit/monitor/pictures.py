"""Flat pictures with segments worked by hand, and a painter that is known."""

import numpy as np
import torch
from torch import nn

from timm_repaint.data.samples import Samples
from timm_repaint.networks.label_maps import find_shapes
from timm_repaint.repainter import Repainted


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def four_stripes(ids=(0, 1, 2, 3)):
    """Label map [1, 32, 32] of four stripes of 8 rows."""
    return torch.tensor(ids).repeat_interleave(8)[:, None].expand(1, 32, 32).contiguous()


def grey(value):
    """A flat image [1, 3, 32, 32], `value` in [0, 1]."""
    return torch.full((1, 3, 32, 32), value * 2 - 1)


def samples_of(images_pm1, labels, targets=None):
    images_u8 = [((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy() for image in images_pm1]
    return Samples(images_u8, [label.numpy().astype(np.uint16) for label in labels], targets or [0] * len(labels))


class Shifting(nn.Module):
    """A painter that makes images brighter, by another random step each time (or always the same)."""

    def __init__(self, step, spread):
        super().__init__()
        self.step, self.spread = step, spread

    def forward(self, image_pm1, labels, generator):
        steps = self.step + self.spread * torch.randint(2, (len(labels), 1, 1, 1), generator=generator)
        return Repainted(image_pm1 + steps, None, find_shapes(labels))
