"""Where a detector's images come from: COCO's folders, a share of them, or the built-in shapes."""

import os
from typing import Protocol

from PIL import Image

from timm_repaint.data.fraction import fixed_share
from timm_repaint.detection.annotations import Annotations, read_coco
from timm_repaint.errors import UsageError


class DetectionImages(Protocol):
    """Images with boxes.

    Attributes:
        annotations: Boxes and classes.
        image_root: Folder of the images; None where they are no files.
    """

    annotations: Annotations
    image_root: str | None

    def read(self, index: int) -> Image.Image:
        """The image as RGB, of the size that its annotations say."""

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """The image's path, or its number."""


class CocoImages:
    """Images in COCO's layout: `ROOT/<split>/<file_name>`, as stored: no rotation by EXIF.

    Args:
        root: Folder with `annotations/` and the splits' folders.
        split: As in train2017.
        fraction: Share of the images that is kept, above 0 and up to 1: see `fixed_share`.

    Raises:
        UsageError: see `read_coco`; if the split has no folder.
    """

    def __init__(self, root: str, split: str, fraction: float = 1.0) -> None:
        annotations = read_coco(root, split)
        self.image_root: str | None = os.path.abspath(os.path.join(root, split))
        if not os.path.isdir(self.image_root):
            raise UsageError(f'{os.path.join(root, split)} does not exist; it has to hold the images of split {split}')
        if fraction < 1:
            annotations = annotations.select(fixed_share(len(annotations), fraction))
        self.annotations = annotations

    def read(self, index: int) -> Image.Image:
        """The image as RGB.

        Raises:
            UsageError: if it is missing, unreadable, or of another size than annotated.
        """
        path = self.filename(index, absolute=True)
        try:
            with Image.open(path) as picture:
                image = picture.convert('RGB')
        except Exception as error:  # Pillow's errors have no class in common
            raise UsageError(f'cannot read the image {path}: {error}') from error
        height, width = self.annotations.sizes_hw[index]
        if image.size != (width, height):
            raise UsageError(f'{path} is {image.width}x{image.height}, its annotations are for {width}x{height}')
        return image

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        assert self.image_root is not None
        name = self.annotations.file_names[index]
        return os.path.basename(name) if basename else os.path.join(self.image_root, name) if absolute else name
