"""One image after the other: read, segmented, repainted and written, in any process."""

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.files import write_whole
from timm_repaint.masks.folder import FolderMasks, resize_nearest
from timm_repaint.masks.label_png import digest, image_comment, is_of, png_info, read_note
from timm_repaint.painters import AnyRepainter
from timm_repaint.pictures import UNREADABLE, convert_picture, reason_of, to_pm1, to_u8
from timm_repaint.repainter import MIN_SIZE_PX

FORMATS = {'png': 'PNG', 'jpg': 'JPEG'}  # endings and Pillow's names
JPEG_QUALITY = 95
ORIENTATION = 0x0112  # EXIF's tag: how stored pixels are turned to look at them
UNTURNED = 1


@dataclass(frozen=True)
class Manner:
    """How images are painted and written.

    Attributes:
        copies: Repaints of each image.
        strength: 0: the original, 1: as drawn.
        max_size: Longest side to paint at, in pixels; larger images are enlarged again.
        seed: Of the random numbers.
        ending: A key of `FORMATS`.
        as_stored: Images are not turned as their EXIF says, since labels lie on them.
    """

    copies: int
    strength: float
    max_size: int
    seed: int
    ending: str
    as_stored: bool = False


@dataclass
class Canvas:
    """An image to be painted, or why it is not.

    Attributes:
        name: Relative to the images' folder.
        stem: Of its repaints' names.
        whole: In RGB and its own size.
        image_u8: At the size to paint at, [H, W, 3].
        labels: Its label map [H, W]; None where it is cut on a device.
        mark: Of the file that it was.
        orientation: EXIF's value for how its pixels are turned to look at them, 1 to 8.
        unreadable: What is wrong with it.
    """

    name: str
    stem: str
    whole: Image.Image | None = None
    image_u8: np.ndarray | None = None
    labels: np.ndarray | None = None
    mark: str = ''
    orientation: int = UNTURNED
    unreadable: str = ''


@dataclass(frozen=True)
class Brush:
    """Paints images of a folder into another one.

    Attributes:
        root: The images' folder.
        out: Where the repaints go.
        manner: See there.
        repainter: E and G, or a painter without a network.
        masks: A mask source, or stored masks; None: the painter needs none.
        device: Where to compute.
    """

    root: Path
    out: Path
    manner: Manner
    repainter: AnyRepainter
    masks: Any
    device: str

    def targets(self, stem: str) -> list[Path]:
        """Files of an image's repaints."""
        return [self.out / f'{stem}-{copy}.{self.manner.ending}' for copy in range(1, self.manner.copies + 1)]

    def prepare(self, items: list[tuple[str, str]]) -> list[Canvas]:
        """Read images, given by name and stem, and cut their masks where that needs no device."""
        return [self._prepare(Canvas(*item)) for item in items]

    def paint(self, items: list[tuple[str, str]]) -> list[Canvas]:
        """The same, and repaint and write them; without their pixels, which need not go back to the parent."""
        return [self.finish(self._prepare(Canvas(*item))) for item in items]

    def _prepare(self, canvas: Canvas) -> Canvas:
        path = self.root / canvas.name
        if are_painted(self.targets(canvas.stem), path):
            return canvas
        try:
            content = path.read_bytes()
            whole = load_image(content, self.manner.as_stored)
            canvas.orientation = read_orientation(content) if self.manner.as_stored else UNTURNED
        except UNREADABLE as error:
            canvas.unreadable = f'{path}: {reason_of(error)}'
        else:
            canvas.mark, canvas.whole = digest(content), whole
            canvas.image_u8 = np.asarray(working_image(whole, self.manner.max_size))
            if not (getattr(self.masks, 'on_device', False) and self.device != 'cpu'):
                self._cut(canvas)
        return canvas

    def _cut(self, canvas: Canvas) -> None:
        assert canvas.image_u8 is not None and canvas.whole is not None
        height, width = canvas.image_u8.shape[:2]
        try:
            if self.masks is None:
                canvas.labels = np.zeros((height, width), np.uint16)
            elif isinstance(self.masks, FolderMasks):
                stored = self.masks.load(self.root / canvas.name, (canvas.whole.height, canvas.whole.width))
                canvas.labels = resize_nearest(stored, (height, width))
            else:
                canvas.labels = self.masks(canvas.image_u8)
        except ValueError as error:  # a stored mask of another size; more segments than a label map holds
            canvas.unreadable = str(error)

    def finish(self, canvas: Canvas) -> Canvas:
        """Repaint and write what `prepare` made ready."""
        if canvas.whole is None or canvas.image_u8 is None:
            return canvas
        if canvas.labels is None and not canvas.unreadable:
            self._cut(canvas)
        if canvas.labels is not None:
            # A seed an image, so that a call that goes on, or finds more images, paints as one that does all.
            draws = torch.Generator(self.device).manual_seed(seed_of(self.manner.seed, canvas.name))
            repaints = repaint_image(self.repainter, canvas.image_u8, canvas.labels, self.manner.copies, draws)
            for target, repaint_u8 in zip(self.targets(canvas.stem), repaints, strict=True):
                self._write(target, blend(canvas.whole, repaint_u8, self.manner.strength), canvas)
        canvas.whole = canvas.image_u8 = canvas.labels = None
        return canvas

    def _write(self, target: Path, picture: Image.Image, canvas: Canvas) -> None:
        options: dict[str, Any] = {'pnginfo': png_info(canvas.mark)}
        if self.manner.ending == 'jpg':
            options = {'comment': image_comment(canvas.mark), 'quality': JPEG_QUALITY}
        if canvas.orientation != UNTURNED:
            options['exif'] = Image.Exif()
            options['exif'][ORIENTATION] = canvas.orientation
        write_whole(target, partial(picture.save, format=FORMATS[self.manner.ending], **options))


def are_painted(targets: list[Path], image: Path) -> bool:
    """Whether the repaints of an image are there, and it has not been replaced since.

    Raises:
        UsageError: if a file of that name is there that this command did not write.
    """
    there = [target for target in targets if os.path.lexists(target)]
    for target in there:
        with as_mistake(f'cannot read {target}'):
            note = read_note(target)
        if note is None:
            raise UsageError(f'{target} was there before and is no repaint: it is not overwritten; give another OUT')
    return there == targets and all(is_of(str(target), str(image)) for target in targets)


def load_image(content: bytes, as_stored: bool = False) -> Image.Image:
    """The image in RGB, turned as its EXIF says unless `as_stored`; without profile, EXIF and transparent colour."""
    with Image.open(io.BytesIO(content)) as file:
        whole = convert_picture(file if as_stored else ImageOps.exif_transpose(file))
    whole.info = {}  # Pillow would write some of it into a PNG, ahead of our note, if `strength` is below 1
    return whole


def read_orientation(content: bytes) -> int:
    """EXIF's value for how an image's stored pixels are turned to look at them, 1 (as they are) to 8."""
    value: Any = UNTURNED
    with Image.open(io.BytesIO(content)) as file, suppress(SyntaxError):  # EXIF that is none
        if file.format != 'TIFF':  # whose pixels Pillow turns as it reads them
            value = file.getexif().get(ORIENTATION)
    return int(value) if value in range(2, 9) else UNTURNED


def working_image(whole: Image.Image, max_size: int) -> Image.Image:
    """The image at the size to paint at: its longer side at most `max_size`, no side below what G needs."""
    scale = min(1.0, max_size / max(whole.size))
    width, height = (max(MIN_SIZE_PX, round(side * scale)) for side in whole.size)
    return whole if (width, height) == whole.size else whole.resize((width, height), Image.Resampling.BICUBIC)


def blend(whole: Image.Image, repaint_u8: np.ndarray, strength: float) -> Image.Image:
    """The repaint at the image's size, mixed with it: strength 0 is the image, 1 the repaint."""
    repaint = Image.fromarray(repaint_u8)
    if repaint.size != whole.size:
        repaint = repaint.resize(whole.size, Image.Resampling.BICUBIC)
    return repaint if strength == 1 else Image.blend(whole, repaint, strength)


def seed_of(seed: int, name: str) -> int:
    """The seed of an image's repaints, whatever other images there are."""
    return int(digest(f'{seed} {name}'.encode(errors='surrogateescape')), 16) % 2**63


@torch.inference_mode()
def repaint_image(
    repainter: AnyRepainter, image_u8: np.ndarray, labels: np.ndarray, copies: int, generator: torch.Generator
) -> Iterator[np.ndarray]:
    """Repaints [H, W, 3] uint8 of one image [H, W, 3] uint8 under its label map [H, W]."""
    device = generator.device
    image_pm1 = to_pm1([image_u8], device)
    label_tensor = torch.from_numpy(labels.astype(np.int64)).to(device)[None]
    for _ in range(copies):
        yield to_u8(repainter(image_pm1, label_tensor, generator).image_pm1[0])
