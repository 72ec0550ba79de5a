"""Image files below a folder and their pixels, found and read alike by every command.

Links are followed and hidden folders left out; images of more than 8 bits are scaled to 8: Pillow would cut at 255.
"""

import os
import tarfile
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data.readers.img_extensions import get_img_extensions
from timm.utils import natural_key

from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.log import logger

# What Pillow raises for a file that it cannot read: damaged, of another kind, or suspiciously large.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, OverflowError, MemoryError, EOFError),
    *(Image.DecompressionBombError, tarfile.TarError),  # the last: where an image is in an archive
)
DEEP_MODES = ('I', 'I;16', 'I;16L', 'I;16B', 'I;16N', 'F')
COCO_STUFF = os.path.join('stuffthingmaps', '')
HALF = '._'  # macOS keeps what it knows of a.jpg in ._a.jpg on other systems' disks: no image
BYTE_MAX, WORD_MAX = 255, 65535


def is_hidden(name: str) -> bool:
    """Whether a name below a data folder has a part that starts with a dot, as in `.ipynb_checkpoints/a.png`."""
    return any(part.startswith('.') and part not in (os.curdir, os.pardir) for part in name.split(os.sep))


def walk(root: str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder below `root` that is not hidden, relative to it and itself first, with the names of its files.

    Those that macOS puts beside its files are left out.

    Raises:
        UsageError: if a link leads back to a folder above it, a folder cannot be read, or something there is no file.
    """
    top = os.path.realpath(root)
    todo: list[tuple[str, tuple[str, ...]]] = [('', (top,))]
    while todo:
        folder, trail = todo.pop()
        path = os.path.join(root, folder) if folder else root
        with as_mistake(f'cannot read the folder {path}'), os.scandir(path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        files: list[str] = []
        folders: list[tuple[str, tuple[str, ...]]] = []
        for entry in entries:
            if not entry.is_dir():
                if not entry.name.startswith(HALF):
                    files.append(entry.name)
                if not entry.is_file() and os.path.exists(entry.path):  # reading it may never end
                    raise UsageError(f'{entry.path} is no file but a pipe, a socket or a device: remove it')
                continue
            if entry.name.startswith('.'):
                continue
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(trail[-1], entry.name)
            if real in trail:
                raise UsageError(f'{entry.path} leads back to {real}, which is above it: remove the link')
            folders.append((os.path.join(folder, entry.name), (*trail, real)))
        yield folder, files
        todo += reversed(folders)


def ending_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def unread_endings(read: set[str]) -> set[str]:
    """Endings of images that Pillow reads, without some."""
    return set(Image.registered_extensions()) - read


def tell_counts(endings: Mapping[str, int]) -> str:
    """How many files there are of each ending, for messages."""
    return ', '.join(f'{count} {ending or "without an ending"}' for ending, count in sorted(endings.items()))


def find_pictures(root: str | os.PathLike[str], read: str | None = None, tell: bool = False) -> list[str]:
    """Names of the images below a folder, relative to it, in timm's order: those whose endings timm reads.

    Beside COCO's annotations the label maps of COCO-Stuff are no images.

    Args:
        root: The folder.
        read: Endings instead of timm's, as `--input-key` has them: '.jpg;.webp'.
        tell: Whether images of other endings are named in a warning.

    Raises:
        UsageError: see `walk`.
    """
    endings = set(read.split(';')) if read else get_img_extensions(as_set=True)
    files = [os.path.join(folder, name) for folder, names in walk(root) for name in names]
    found = [name for name in files if ending_of(name) in endings]
    if tell:
        unread, others = unread_endings(endings), Counter(ending_of(name) for name in files)
        if told := tell_counts({ending: count for ending, count in others.items() if ending in unread}):
            known = ' '.join(sorted(endings))
            logger.warning('%s has images that are not read: %s; files are read that end with %s', root, told, known)
    if os.path.isdir(os.path.join(root, 'annotations')):
        found = [name for name in found if not name.startswith(COCO_STUFF)]
    return sorted(found, key=_order)


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder or lies in it, links followed."""
    top = os.path.realpath(folder)
    return os.path.commonpath([top, os.path.realpath(path)]) == top


def list_pictures(
    root: str | os.PathLike[str], what: str, outside: str | os.PathLike[str] = '', read: str | None = None
) -> list[str]:
    """The same of a folder that must have some.

    Args:
        root: The folder.
        what: What the images are, for messages.
        outside: A folder that must not lie in it, since files are written there; '': none.
        read: As of `find_pictures`.

    Raises:
        UsageError: if there is no such folder, or no image in it, or `outside` lies in it.
    """
    if not os.path.isdir(root):
        wrong = 'is no folder' if os.path.exists(root) else 'does not exist'
        raise UsageError(f'{what} folder {root} {wrong}')
    if outside and is_inside(outside, root):
        raise UsageError(f'{outside} lies inside the {what} folder {root}; choose one outside')
    found = find_pictures(root, read, tell=True)
    if not found:
        raise UsageError(f'{what} folder {root} has no images')
    return found


def _order(name: str) -> list[str | int]:
    """timm's order, also of names that it cannot order: it takes every digit of Unicode for a number."""
    try:
        return natural_key(name)
    except ValueError:
        return [name.lower()]


def is_deep(picture: Image.Image) -> bool:
    """Whether an image has more than 8 bits a pixel, which `convert_picture` scales."""
    return picture.mode in DEEP_MODES


def convert_picture(picture: Image.Image, mode: str | None = 'RGB') -> Image.Image:
    """An image in another of Pillow's modes; grey values of more bits are scaled to 8 unless they fit there anyway.

    Numbers with a fraction may be from 0 to 1 as well.
    """
    if mode and mode != picture.mode and is_deep(picture):
        values = np.nan_to_num(np.asarray(picture).astype(np.float64), posinf=0).clip(0)
        highest = values.max(initial=0)
        if picture.mode == 'F' and highest <= 1:
            values *= BYTE_MAX
        elif highest > BYTE_MAX:
            values *= BYTE_MAX / max(WORD_MAX, highest)
        picture = Image.fromarray(values.round().astype(np.uint8))
    return picture.convert(mode) if mode else picture


def read_picture(file: Any) -> Image.Image:
    """The image of a path or an open file in RGB, as stored: no rotation by EXIF.

    Raises:
        UNREADABLE: if Pillow cannot read it.
    """
    with Image.open(file) as picture:
        return convert_picture(picture)


def read_picture_size(file: Any) -> tuple[int, int]:
    """Height and width of an image as stored.

    Raises:
        UNREADABLE: if Pillow cannot read it.
    """
    with Image.open(file) as picture:
        return picture.height, picture.width


def reason_of(error: Exception) -> str:
    """Why a file is no image."""
    if isinstance(error, UnidentifiedImageError):  # its message has the address of the bytes
        return 'no image that Pillow can read'
    return f'{type(error).__name__}: {error}'


def data_url(picture: Image.Image, kind: str, **options: Any) -> str:
    """An image as an address that holds it, for a page that needs no other file; `kind`: 'png', 'jpeg' or 'webp'."""
    content = BytesIO()
    picture.save(content, kind, **options)
    return f'data:image/{kind};base64,{b64encode(content.getvalue()).decode()}'


def to_pm1(images_u8: Sequence[np.ndarray], device: torch.device | str = 'cpu') -> torch.Tensor:
    """N images [H, W, 3] uint8 -> [N, 3, H, W] float32 in [-1, 1], on the device."""
    return torch.from_numpy(np.stack(images_u8)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_u8(image_pm1: torch.Tensor) -> np.ndarray:
    """[3, H, W] in [-1, 1] -> [H, W, 3] uint8."""
    return ((image_pm1 + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
