"""A built-in data set of textured shapes in which texture is the easier cue and shape the right one.

Class k is a shape; texture k belongs to it. In training and validation images a shape wears its own texture nine times
out of ten, in the split 'cue-conflict' never, so that split shows which of the two cues a classifier follows.
Everything is drawn from (split, seed, index) alone: no files, and the same image in every worker and run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

from timm_repaint.errors import UsageError

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring', 'crescent', 'hexagon', 'arrow', 'heart')
DEFAULT_SAMPLES = {'train': 2000, 'validation': 500, 'cue-conflict': 500}  # split -> images; the order seeds the splits
OWN_TEXTURE_SHARE = {'train': 0.9, 'validation': 0.9, 'cue-conflict': 0.0}
MIN_IMAGE_SIZE_PX = 16  # below, a texture's period is under two pixels and the texture is gone
KEPT_PIXELS = 16_000_000  # of drawn images, in each process: 64 MB, 3,900 images of 64 px
TEXTURE_OVERSAMPLING = 2
OUTLINE_OVERSAMPLING = 4
AREA_SHARE = (0.14, 0.34)  # of the picture, the same range for all shapes so that size tells nothing
MAX_ROTATION_DEG = 30.0


# Outlines ------------------------------------------------------------------------------------------------------------


def _polygon(radii: list[float], start_deg: float = -90.0) -> np.ndarray:
    """Corners at equal angles and the given radii, [N, 2] (x to the right, y down)."""
    angles = math.radians(start_deg) + 2 * math.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.asarray(radii)[:, None]


def _ring() -> np.ndarray:
    circle = _polygon([1.0] * 65, start_deg=0.0)
    closed = np.concatenate([circle, circle[:1]])
    return np.concatenate([closed, 0.55 * closed[::-1]])  # out along the rim, back along the hole


def _crescent() -> np.ndarray:
    outer = np.radians(np.linspace(50, 310, 48))
    tip_x, tip_y = math.cos(outer[0]), math.sin(outer[0])
    centre_x = 0.62
    radius, half_angle = math.hypot(tip_x - centre_x, tip_y), math.atan2(tip_y, tip_x - centre_x)
    inner = np.linspace(2 * math.pi - half_angle, half_angle, 48)
    rim = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    return np.concatenate([rim, np.stack([centre_x + radius * np.cos(inner), radius * np.sin(inner)], axis=1)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


def _cross() -> np.ndarray:
    a, b = 0.32, 1.0
    return np.array(
        [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    )


def _arrow() -> np.ndarray:
    return np.array([(-1.0, -0.3), (0.05, -0.3), (0.05, -0.8), (1.0, 0.0), (0.05, 0.8), (0.05, 0.3), (-1.0, 0.3)])


def _unit_area(corners: np.ndarray) -> np.ndarray:
    """Centres the corners [N, 2] on their bounding box and scales the polygon to area 1 (shoelace formula)."""
    corners = corners - (corners.min(axis=0) + corners.max(axis=0)) / 2
    x, y = corners.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return corners / math.sqrt(area)


OUTLINES = {
    'circle': _unit_area(_polygon([1.0] * 64)),
    'square': _unit_area(_polygon([1.0] * 4, start_deg=45.0)),
    'triangle': _unit_area(_polygon([1.0] * 3)),
    'star': _unit_area(_polygon([1.0, 0.42] * 5)),
    'cross': _unit_area(_cross()),
    'ring': _unit_area(_ring()),
    'crescent': _unit_area(_crescent()),
    'hexagon': _unit_area(_polygon([1.0] * 6)),
    'arrow': _unit_area(_arrow()),
    'heart': _unit_area(_heart()),
}


def draw_outline(corners: np.ndarray, image_size: int) -> np.ndarray:
    """Coverage of each pixel by the polygon (corners in shares of the picture), [S, S] float32 in [0, 1]."""
    large = Image.new('L', (image_size * OUTLINE_OVERSAMPLING,) * 2)
    points = [tuple(corner) for corner in (corners * large.width).tolist()]
    ImageDraw.Draw(large).polygon(points, fill=255)
    return np.asarray(large.reduce(OUTLINE_OVERSAMPLING), dtype=np.float32) / 255


def place_outline(outline: np.ndarray, area_share: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Random size, rotation and position; the shape stays inside the picture.

    Args:
        outline: corners of a shape of area 1, [N, 2].
        area_share: least and greatest area, in shares of the picture.
        rng: source of the random numbers.

    Returns:
        Corners in shares of the picture, [N, 2].
    """
    angle = math.radians(rng.uniform(-MAX_ROTATION_DEG, MAX_ROTATION_DEG))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = outline @ rotation.T * math.sqrt(rng.uniform(*area_share))
    low, high = corners.min(axis=0), corners.max(axis=0)
    corners *= min(1.0, 0.96 / float((high - low).max()))
    low, high = corners.min(axis=0), corners.max(axis=0)
    return corners - low + rng.random(2) * (1 - (high - low))


# Textures: (u, v) in periods, generator -> share of the second colour in [0, 1] ---------------------------------------


def _stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (v % 1 < 0.5).astype(np.float32)


def _checkers(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (np.floor(1.4 * u) + np.floor(1.4 * v)) % 2


def _dots(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.1).astype(np.float32)


def _clouds(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random values on a coarse grid, enlarged smoothly: [H, W], as u and v."""
    coarse = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((u.shape[1], u.shape[0]), Image.Resampling.BICUBIC)
    return np.clip((np.asarray(smooth, dtype=np.float32) / 255 - 0.3) * 2.5, 0, 1)


def _waves(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * math.pi * (v + 0.6 * np.sin(2 * math.pi * 0.3 * u)))


def _bricks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = np.floor(1.3 * v)
    return np.minimum((0.65 * u + 0.5 * (row % 2)) % 1 > 0.12, (1.3 * v) % 1 > 0.22).astype(np.float32)


def _rings(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    centre_u, centre_v = rng.uniform(0.35, 0.65, 2)
    x, y = u - _between(u, centre_u), v - _between(v, centre_v)
    return (np.sqrt(x * x + y * y) % 1 < 0.5).astype(np.float32)


def _speckle(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent noise a pixel of the picture, [H, W], as u and v."""
    height, width = (-(-side // TEXTURE_OVERSAMPLING) for side in u.shape)
    noise = rng.random((height, width), dtype=np.float32)
    return noise.repeat(TEXTURE_OVERSAMPLING, 0).repeat(TEXTURE_OVERSAMPLING, 1)[: u.shape[0], : u.shape[1]]


def _grid(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.maximum(u % 1 < 0.2, v % 1 < 0.2).astype(np.float32)


def _zigzag(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return ((v + 1.2 * np.abs(0.6 * u % 1 - 0.5)) % 1 < 0.5).astype(np.float32)


def _between(values: np.ndarray, share: float) -> float:
    return float(values.min() + share * (values.max() - values.min()))


@dataclass(frozen=True)
class Texture:
    """A pattern and its two colours (RGB, 0 to 255), which every image varies a little."""

    name: str
    pattern: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
    first_rgb: tuple[int, int, int]
    second_rgb: tuple[int, int, int]


TEXTURES = (  # texture k belongs to CLASSES[k]
    Texture('stripes', _stripes, (190, 50, 50), (240, 200, 180)),
    Texture('checkers', _checkers, (50, 60, 150), (200, 205, 235)),
    Texture('dots', _dots, (60, 140, 70), (235, 235, 120)),
    Texture('clouds', _clouds, (70, 120, 190), (225, 235, 245)),
    Texture('waves', _waves, (30, 110, 120), (120, 215, 205)),
    Texture('bricks', _bricks, (215, 205, 195), (165, 85, 55)),
    Texture('rings', _rings, (120, 60, 150), (225, 170, 230)),
    Texture('speckle', _speckle, (60, 50, 40), (200, 190, 165)),
    Texture('grid', _grid, (235, 160, 60), (110, 60, 20)),
    Texture('zigzag', _zigzag, (40, 40, 50), (215, 215, 220)),
)


def draw_texture(texture: Texture, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """One variation of a texture, [S, S, 3] float32 in 0 to 255."""
    side = image_size * TEXTURE_OVERSAMPLING
    period = side / rng.uniform(6.5, 9.5)
    angle = math.radians(rng.uniform(-20, 20))
    offset_u, offset_v = rng.random(2)
    x = np.arange(side, dtype=np.float32)[None, :] / period
    y = np.arange(side, dtype=np.float32)[:, None] / period
    u = math.cos(angle) * x - math.sin(angle) * y + float(offset_u)
    v = math.sin(angle) * x + math.cos(angle) * y + float(offset_v)
    blend = np.asarray(texture.pattern(u, v, rng), dtype=np.float32)  # [2S, 2S]
    blend = blend.reshape(image_size, TEXTURE_OVERSAMPLING, image_size, TEXTURE_OVERSAMPLING).mean((1, 3))  # [S, S]
    colours = np.array([texture.first_rgb, texture.second_rgb]) + rng.uniform(-25, 25, (2, 3)) + rng.uniform(-20, 20)
    first, second = colours.astype(np.float32)
    return first + blend[..., None] * (second - first)


# The data set --------------------------------------------------------------------------------------------------------


def number_of_images(split: str, num_samples: int | None) -> int:
    """Of a split, or as many as are asked for.

    Raises:
        UsageError: if the split is unknown or there is no image.
    """
    if split not in DEFAULT_SAMPLES:
        raise UsageError(f'shapes has no split {split!r}; choose one of: {", ".join(DEFAULT_SAMPLES)}')
    if num_samples is not None and num_samples < 1:
        raise UsageError(f'shapes needs at least 1 image, got num_samples {num_samples}')
    return DEFAULT_SAMPLES[split] if num_samples is None else num_samples


def numbers_of_image(seed: int, split: str, index: int) -> np.random.Generator:
    """The random numbers of an image, whatever other images there are."""
    entropy = [seed, list(DEFAULT_SAMPLES).index(split), int(index)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


class ShapesDataset(Dataset):
    """Textured shapes on textured backgrounds: (image, class of the shape).

    Args:
        split: 'train', 'validation' or 'cue-conflict'.
        num_samples: number of images; None: 2000, 500 and 500. Image i does not depend on it.
        image_size: side in pixels.
        seed: another seed, other images.

    Attributes:
        transform: PIL RGB image to what __getitem__ returns; None: the PIL image.
        target_transform: class to what __getitem__ returns; None: the class.

    Raises:
        UsageError: a ValueError; if the split is unknown, num_samples is below 1 or image_size below 16.
    """

    def __init__(
        self, split: str = 'train', num_samples: int | None = None, image_size: int = 64, seed: int = 0
    ) -> None:
        if image_size < MIN_IMAGE_SIZE_PX:
            raise UsageError(f'shapes needs image_size {MIN_IMAGE_SIZE_PX} or more, got {image_size}')
        self.split = split
        self.num_samples = number_of_images(split, num_samples)
        self.image_size = image_size
        self.seed = seed
        self.transform: Callable | None = None
        self.target_transform: Callable | None = None
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_drawn': {}}

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = Image.fromarray(self._draw(index)[0])
        target = self.target(index)
        if self.transform is not None:
            image = self.transform(image)
        return image, target if self.target_transform is None else self.target_transform(target)

    def target(self, index: int) -> int:
        """Class of image `index`: an index into CLASSES, all equally frequent."""
        if not 0 <= index < self.num_samples:
            raise IndexError(f'image {index} of {self.num_samples}')
        return int(index) % len(CLASSES)

    def read(self, index: int) -> tuple[tuple[Any, Any], int]:
        """The sample at `index` and its position, as `NamedImages` has them."""
        return self[index], index

    def outline(self, index: int) -> np.ndarray:
        """Label map of image `index`: 1 inside the shape, 0 outside, [S, S] uint8."""
        return self._draw(index)[1]

    def texture_label(self, index: int) -> int:
        """Class to which the texture of image `index`'s shape belongs."""
        return self._choose_textures(index)[0]

    def _choose_textures(self, index: int) -> tuple[int, int, np.random.Generator]:
        """Texture of the shape, texture of the background, and the generator for everything else."""
        target = self.target(index)
        rng = numbers_of_image(self.seed, self.split, index)
        # The background never wears the shape's own texture, or it would speak for the right class in cue conflicts.
        others = [k for k in range(len(TEXTURES)) if k != target]
        foreign, background = rng.choice(others, 2, replace=False).tolist()
        own = rng.random() < OWN_TEXTURE_SHARE[self.split]
        return (target if own else foreign), background, rng

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image [S, S, 3] and outline [S, S], uint8; kept as long as there is room, as drawing takes milliseconds."""
        if index in self._drawn:
            return self._drawn[index]
        drawn = self._draw_anew(index)
        if len(self._drawn) < KEPT_PIXELS // self.image_size**2:
            self._drawn[index] = drawn
        return drawn

    def _draw_anew(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        texture, background, rng = self._choose_textures(index)
        inside = draw_texture(TEXTURES[texture], self.image_size, rng)  # [S, S, 3]
        outside = draw_texture(TEXTURES[background], self.image_size, rng)  # [S, S, 3]
        corners = place_outline(OUTLINES[CLASSES[self.target(index)]], AREA_SHARE, rng)
        coverage = draw_outline(corners, self.image_size)  # [S, S]
        pixels = outside + coverage[..., None] * (inside - outside)
        drawn = np.clip(pixels + 0.5, 0, 255).astype(np.uint8), (coverage > 0.5).astype(np.uint8)
        for array in drawn:
            array.setflags(write=False)
        return drawn
