"""Label maps as PNG files: 8 or 16 bits a pixel, written whole or not at all; each notes which image it is of."""

import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from timm_repaint.errors import UsageError
from timm_repaint.files import write_whole
from timm_repaint.pictures import UNREADABLE

MAX_BYTE = 255
NOTE = 'image'  # the name of a text in the file
NOTE_WITHIN = 1024  # bytes, behind the palette
COMPRESS_LEVEL = 6  # 9 takes five times as long for files 4 % smaller
MIN_COLOURS = 17  # with fewer Pillow packs several pixels into a byte, which saves little and is slower to read
BYTE_MODES = ('1', 'L', 'P')
LABEL_MODES = (*BYTE_MODES, 'I', 'I;16')
# Pillow spreads grey values of 2 and 4 bits over 0 to 255; labels are the values as stored.
GREY_STEPS = {'L;2': 85, 'L;4': 17}
# Colours only to look at. Pillow writes palette pictures without row filters: smaller for plain areas, faster to read.
PALETTE = np.random.default_rng(0).integers(0, 256, (MAX_BYTE + 1, 3), dtype=np.uint8)


def save_labels(path: str | Path, labels: np.ndarray, note: str | None = None) -> None:
    """Writes a label map, with 8 bits a pixel if they suffice, else 16.

    Args:
        path: file to write or replace; its folder is made.
        labels: [H, W] integers, 0 to 65535.
        note: a short text that is kept in the file.

    Raises:
        UsageError: if the file cannot be written.
    """
    if labels.max(initial=0) <= MAX_BYTE:
        picture = Image.fromarray(labels.astype(np.uint8))
        picture.putpalette(PALETTE[: max(MIN_COLOURS, int(labels.max(initial=0)) + 1)].tobytes())
    else:
        picture = Image.fromarray(labels.astype(np.uint16))
    write_whole(path, lambda file: picture.save(file, 'PNG', compress_level=COMPRESS_LEVEL, pnginfo=png_info(note)))


def png_info(note: str | None) -> PngInfo:
    """A note, or none, for Pillow to write into a PNG."""
    info = PngInfo()
    if note is not None:
        info.add_text(NOTE, note)
    return info


def image_comment(note: str) -> bytes:
    """The same as the comment of a JPEG file."""
    return f'{NOTE}\0{note}'.encode()


def read_note(path: str | Path) -> str | None:
    """The note of `png_info` or `image_comment` in a file; None without one.

    Raises:
        OSError: if the file cannot be read.
    """
    with open(path, 'rb') as file:
        start = file.read(NOTE_WITHIN)
    found = re.search(rb'(?:(.{4})tEXt|\xff\xfe(..))' + NOTE.encode() + rb'\0', start, re.DOTALL)
    if not found:
        return None
    # PNG counts the name and its end, JPEG the length's two bytes too; what follows may look like more of the note.
    length = int.from_bytes(found[1] or found[2], 'big') - len(NOTE) - (1 if found[1] else 3)
    text = start[found.end() : found.end() + length]
    return text.decode() if re.fullmatch(rb'[0-9a-f]+', text) else None


def digest(image: bytes) -> str:
    """What a mask notes of its image's file."""
    return hashlib.blake2b(image, digest_size=8).hexdigest()


def is_of(mask_path: str, image_path: str) -> bool:
    """Whether a mask is its image's: by time, and by its note where the image is newer, as a copy of it is.

    An image that was moved here is as new as the move, whatever its own time says.

    Raises:
        UsageError: if one of them cannot be read.
    """
    try:
        image, made_ns = os.stat(image_path), os.stat(mask_path).st_mtime_ns
        if made_ns >= max(image.st_mtime_ns, image.st_ctime_ns):
            return True
        note = read_note(mask_path)
        if note is None:  # version 0.1 made none
            return made_ns >= image.st_mtime_ns
        return note == digest(Path(image_path).read_bytes())
    except OSError as error:
        raise UsageError(f'{error.filename}: {error.strerror}') from error


def load_labels(path: str | Path) -> np.ndarray:
    """Reads a label map: a PNG of one channel, 1 to 16 bits a pixel, grey or palette (then the indices).

    Returns:
        [H, W], uint8 or uint16.

    Raises:
        UsageError: if the file is missing, is not a PNG, is damaged or has several channels.
    """
    try:
        with open(path, 'rb') as file, Image.open(io.BytesIO(file.read()), formats=['PNG']) as picture:
            step = GREY_STEPS.get(str(picture.tile[0][3]), 1) if picture.tile else 1  # gone once the pixels are read
            if picture.mode not in LABEL_MODES:
                raise UsageError(f'mask {path} is not a label map: it has {picture.mode} pixels, one channel expected')
            labels = np.asarray(picture)
            return labels // step if step > 1 else labels.astype(np.uint8 if picture.mode in BYTE_MODES else np.uint16)
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f'mask {path} does not exist') from None
    except UNREADABLE as error:
        raise UsageError(f'mask {path} cannot be read: {error}') from error
