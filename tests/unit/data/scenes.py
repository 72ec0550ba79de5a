"""Pictures whose label map can be told from their colours again, also after a transform."""

import random

import numpy as np
import torch
from PIL import Image

# Far apart, and the last two are what timm fills in from outside the image: grey, or black.
COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)], np.int64
)
FILLS = np.array([(124, 116, 104), (0, 0, 0)], np.int64)  # ImageNet's mean
IMAGE_SIZES = [(150, 200), (211, 97), (60, 60)]


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """Label map of plain regions: each pixel belongs to the nearest of some points."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (len(COLOURS), 2)) * (height, width)
    rows, columns = np.mgrid[:height, :width]
    return ((rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2).argmin(-1)


def paint(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(COLOURS[labels].astype(np.uint8))


def labels_from_colours(image_u8: np.ndarray) -> np.ndarray:
    """[3, H, W] back to labels: the nearest colour's number, 255 for the colours from outside."""
    palette = np.concatenate([COLOURS, FILLS])
    distance = ((image_u8.astype(np.int64)[:, None] - palette.T[..., None, None]) ** 2).sum(0)
    nearest = distance.argmin(0)
    return np.where(nearest < len(COLOURS), nearest, 255)


def inner(labels: np.ndarray, margin: int) -> np.ndarray:
    """Where all labels up to `margin` pixels away are equal (beyond the edge too, where a copy of it goes on)."""
    padded = np.pad(labels, margin, mode='edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * margin + 1, 2 * margin + 1))
    return windows.min((-1, -2)) == windows.max((-1, -2))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_numbers() -> tuple[float, float, float]:
    """What each generator would draw next; NumPy's stays as it is."""
    numpy_copy = np.random.RandomState()
    numpy_copy.set_state(np.random.get_state())
    return random.random(), float(numpy_copy.rand()), float(torch.rand(()))
