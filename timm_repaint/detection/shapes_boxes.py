"""A built-in detection set: several textured shapes on a textured background, with their boxes.

Shapes, textures and splits are those of `data/shapes.py`: in training and validation images a shape wears its own
texture nine times out of ten, in the split 'cue-conflict' never. Everything is drawn from (split, index) alone.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from timm_repaint.data import shapes as drawing
from timm_repaint.detection.annotations import Annotations

SHAPES = 'shapes'  # --dataset
MAX_SHAPES = 4
AREA_SHARE = (0.02, 0.09)  # of the picture
MAX_OVERLAP = 0.1  # of the smaller of two boxes
PLACEMENTS = 20  # tries for a shape; one that finds no place is left out
SEED = 1  # other pictures than the classification set's


@dataclass(frozen=True)
class Shape:
    """A shape in a picture.

    Attributes:
        target: Index into CLASSES.
        texture: Index into TEXTURES.
        corners: In shares of the picture, [N, 2].
    """

    target: int
    texture: int
    corners: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """[4]: x0, y0, x1, y1 in shares of the picture."""
        return np.concatenate([self.corners.min(axis=0), self.corners.max(axis=0)])


class DetectionShapes:
    """Pictures of one to four shapes.

    Args:
        split: 'train', 'validation' or 'cue-conflict'.
        num_samples: Number of images; None: 2000, 500 and 500. Image i does not depend on it.
        size_px: Side of the pictures.

    Raises:
        UsageError: if the split is unknown or there is no image.
    """

    image_root: str | None = None

    def __init__(self, split: str, num_samples: int | None, size_px: int) -> None:
        count = drawing.number_of_images(split, num_samples)
        self.split, self.size_px = split, size_px
        scenes = [self._arrange(index)[0] for index in range(count)]
        shapes = [shape for scene in scenes for shape in scene]
        boxes = np.array([shape.box for shape in shapes], dtype=np.float32) * size_px
        self.annotations = Annotations(
            class_names=drawing.CLASSES,
            file_names=tuple(f'{split}-{index}' for index in range(count)),
            sizes_hw=np.full((count, 2), size_px, dtype=np.int32),
            first=np.cumsum([0, *map(len, scenes)]),
            boxes=boxes,
            classes=np.array([shape.target + 1 for shape in shapes], dtype=np.int64),
            crowds=np.zeros(len(shapes), dtype=bool),
            areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        )

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self.annotations.file_names[index]

    def read(self, index: int) -> Image.Image:
        """Draws picture `index`."""
        shapes, rng = self._arrange(index)
        others = [k for k in range(len(drawing.TEXTURES)) if k not in {shape.target for shape in shapes}]
        pixels = drawing.draw_texture(drawing.TEXTURES[rng.choice(others)], self.size_px, rng)  # [S, S, 3]
        for shape in shapes:
            inside = drawing.draw_texture(drawing.TEXTURES[shape.texture], self.size_px, rng)
            coverage = drawing.draw_outline(shape.corners, self.size_px)[..., None]  # [S, S, 1]
            pixels = pixels + coverage * (inside - pixels)
        return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))

    def _arrange(self, index: int) -> tuple[list[Shape], np.random.Generator]:
        """The shapes of picture `index`, and the generator for what is drawn."""
        rng = drawing.numbers_of_image(SEED, self.split, index)
        shapes: list[Shape] = []
        for _ in range(rng.integers(1, MAX_SHAPES + 1)):
            target = int(rng.integers(len(drawing.CLASSES)))
            foreign = int(rng.choice([k for k in range(len(drawing.TEXTURES)) if k != target]))
            texture = target if rng.random() < drawing.OWN_TEXTURE_SHARE[self.split] else foreign
            outline = drawing.OUTLINES[drawing.CLASSES[target]]
            for _ in range(PLACEMENTS):
                shape = Shape(target, texture, drawing.place_outline(outline, AREA_SHARE, rng))
                if all(overlap(shape.box, other.box) <= MAX_OVERLAP for other in shapes):
                    shapes.append(shape)
                    break
        return shapes, rng


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Area that two boxes [4] (x0, y0, x1, y1) share, as a part of the smaller one."""
    common = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    areas = [np.prod(corners[2:] - corners[:2]) for corners in (box, other)]
    return float(np.prod(common.clip(min=0)) / min(areas))
