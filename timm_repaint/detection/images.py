"""Where a detector's images come from: COCO's folders, a share of them, or the built-in shapes."""

import multiprocessing
import os

from PIL import Image

from timm_repaint.data.fraction import fixed_share
from timm_repaint.detection.annotations import annotation_path, read_coco
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.pictures import UNREADABLE, convert_picture

LOOKED_AT = 64  # images whose sizes are looked at before training
ORIENTATION = 0x112  # in EXIF


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
        self._told = multiprocessing.Value('l', 0)
        self._check_files(annotation_path(root, split))
        self._check_sizes()

    def _check_files(self, listed_in: str) -> None:
        """Refuse a split whose images are not all there: to find that out in the middle would cost an epoch."""
        folders = {os.path.dirname(name) for name in self.annotations.file_names}
        there = {folder: _names_in(os.path.join(str(self.image_root), folder)) for folder in folders}
        missing = [
            name for name in self.annotations.file_names if os.path.basename(name) not in there[os.path.dirname(name)]
        ]
        missing = [name for name in missing if not os.path.isfile(os.path.join(str(self.image_root), name))]
        if missing:
            raise UsageError(
                f'{len(missing)} of {len(self.annotations)} images of {listed_in} are not there, first '
                f'{os.path.join(str(self.image_root), missing[0])}; bring them there or take them out of the file'
            )

    def _check_sizes(self) -> None:
        """Look at some of the images, spread evenly: annotations of other images, or of turned ones, are soon found."""
        count = len(self.annotations)
        for index in sorted({number * count // LOOKED_AT for number in range(LOOKED_AT)}):
            try:
                with Image.open(self.filename(index, absolute=True)) as picture:
                    problem = self._find_problem(index, picture)
            except UNREADABLE:  # named and left out when its turn comes
                continue
            if problem:
                raise UsageError(problem)

    def _find_problem(self, index: int, picture: Image.Image) -> str:
        """What is wrong with the size of an image; '': nothing."""
        height, width = self.annotations.sizes_hw[index]
        path = self.filename(index, absolute=True)
        turned = picture.getexif().get(ORIENTATION, 1) != 1
        if picture.size == (width, height):
            if turned and not self._told.value:
                self._told.value = 1
                logger.warning(
                    '%s is turned by EXIF: images are read as stored, and boxes have to be those of the stored image.',
                    path,
                )
            return ''
        problem = f'{path} is {picture.width}x{picture.height}, its annotations are for {width}x{height}'
        if not turned or picture.size != (height, width):
            return problem
        return (
            f'{problem}; it is turned by EXIF and annotated as it is shown: store such images as they are shown, with '
            'mogrify -auto-orient (ImageMagick) or exiftran -ai'
        )

    def read(self, index: int) -> Image.Image:
        """The image as RGB.

        Raises:
            UNREADABLE: if it is missing, unreadable, or of another size than annotated.
        """
        with Image.open(self.filename(index, absolute=True)) as picture:
            problem = self._find_problem(index, picture)
            if problem:
                raise UsageError(problem)
            return convert_picture(picture)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        assert self.image_root is not None
        name = self.annotations.file_names[index]
        return os.path.basename(name) if basename else os.path.join(self.image_root, name) if absolute else name


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
