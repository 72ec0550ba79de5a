"""Masks made once and kept as PNG label maps in a tree like the images'; the command is `python -m timm_repaint.masks`.

A mask is cut from the image as timm's reader sees it (RGB, EXIF rotation not applied), scaled down to a shorter side
of size_px if it is larger. Files appear whole, so a run that was stopped goes on where it was; masks of images that
have been replaced since are made again.
"""

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from timm_repaint.errors import UsageError
from timm_repaint.masks.archive import ArchiveMasks, PackedImages, is_sharded, packed_name, read_packed
from timm_repaint.masks.folder import CachedMasks, mask_name, mask_size
from timm_repaint.masks.label_png import digest, is_of, read_note, save_labels
from timm_repaint.masks.workers import CHUNK, in_workers
from timm_repaint.pictures import list_pictures, read_picture, read_picture_size, reason_of, to_pm1
from timm_repaint.progress import progress

DEFAULT_SIZE_PX = 256
MAX_WAITING_BATCHES = 8  # batches' worth of decoded images that wait for others of their size


@dataclass(frozen=True)
class Folders:
    """Where images come from and masks go to.

    Attributes:
        images: the folder of the images.
        masks: that of the masks.
        size_px: of the masks, see mask_size.
        packed: where the images are if they are no files.
    """

    images: str
    masks: str
    size_px: int = DEFAULT_SIZE_PX
    packed: PackedImages | None = None

    @property
    def sharded(self) -> bool:
        return self.packed is not None and is_sharded(self.packed.dataset)

    def mask_path(self, name: str) -> str:
        return os.path.join(self.masks, mask_name(name))


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        made: number of new masks, or of good ones for `check_cache`.
        kept: number of masks that were there before.
        failed: image and reason of each failure.
        unreadable: how many of them are images that cannot be read, which training skips.
    """

    made: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    unreadable: int = 0


class _Image(NamedTuple):
    """An image of the data set, on its way to its mask: made, kept (neither that nor a problem) or failed.

    Attributes:
        name: what to call it in a message.
        mask: path of its mask.
        path: its file; '': it is none.
        content: its encoded bytes, if it is no file.
        problem: why it has no mask; '': it has, or not known yet.
        image_u8: [h, w, 3] at its mask's size; None: not read, failed or kept.
        note: what its mask notes of it; '': it was not read.
        made: whether its mask was made, or found to be good.
    """

    name: str
    mask: str = ''
    path: str = ''
    content: bytes = b''
    problem: str = ''
    image_u8: np.ndarray | None = None
    note: str = ''
    made: bool = False

    def save(self, labels: np.ndarray) -> '_Image':
        """Write the image's mask [h, w]."""
        save_labels(self.mask, labels, self.note)
        return self._replace(image_u8=None, made=True)


def list_images(folders: Folders, endings: str | None = None) -> list[str]:
    """Names of all images below a folder, in timm's order, relative to it; see `find_pictures`.

    Raises:
        UsageError: if there are none, the masks would lie among them, or two images would share a mask.
    """
    names = list_pictures(folders.images, 'image', folders.masks, endings)
    by_mask: dict[str, str] = {}
    for name in names:
        twin = by_mask.setdefault(mask_name(name), name)
        if twin != name:
            raise UsageError(f'{twin} and {name} would share the mask {mask_name(name)}; rename one of them')
    return names


def read_image(folders: Folders, name: str) -> np.ndarray:
    """An image at its mask's size, [h, w, 3] uint8 RGB.

    Raises:
        Exception: whatever Pillow finds wrong with the file.
    """
    return _at_mask_size(Path(folders.images, name).read_bytes(), folders.size_px)


def _at_mask_size(content: bytes, size_px: int) -> np.ndarray:
    picture = read_picture(io.BytesIO(content))
    height, width = mask_size((picture.height, picture.width), size_px)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def make_masks(folders: Folders, names: Sequence[Any], source: Any, workers: int, batch_size: int = 8) -> Outcome:
    """Makes the masks that are not there yet, or were made from images that have been replaced.

    Args:
        folders: see Folders; the caller has claimed the mask folder.
        names: images, relative to folders.images; parts of a packed data set, see archive.packed_parts.
        source: a mask source. One with `on_device` segments batches of one size in this process, where it lies;
            the workers only read images for it.
        workers: number of worker processes.
        batch_size: images a batch on the device.

    Raises:
        UsageError: if a mask cannot be written.
    """
    in_processes = partial(in_workers, items=names, workers=workers, chunk=1 if folders.sharded else CHUNK)
    if source.on_device:
        decoded = in_processes(partial(_decode_list, folders))
        done = _segment_on_device(decoded, source, batch_size)
    else:
        done = in_processes(partial(segment_images, folders, source))
    return _count(done, 'masks', _number_of(names, folders))


def check_cache(folders: Folders, names: Sequence[Any], workers: int) -> Outcome:
    """Compares a cache with its images: masks that are missing, unreadable, of a wrong size or with wrong labels.

    Args:
        folders, names, workers: see make_masks.

    Raises:
        UsageError: if folders.masks is no cache.
    """
    masks = CachedMasks(folders.masks, folders.images) if folders.packed is None else ArchiveMasks(folders.masks)
    done = in_workers(partial(_check, folders, masks), names, workers, CHUNK if folders.packed is None else 1)
    return _count(done, 'check', _number_of(names, folders))


def _number_of(names: Sequence[Any], folders: Folders) -> int:
    """How many images there are, for the progress; 0 where shards do not say it."""
    if folders.packed is None or not folders.sharded:
        return len(names)
    return folders.packed.dataset.reader.num_samples or 0


def _count(done: Iterator[_Image], label: str, total: int) -> Outcome:
    outcome = Outcome()
    for one in progress(done, label, total):
        outcome.made += one.made
        outcome.kept += not one.made and not one.problem
        outcome.unreadable += bool(one.problem and one.mask and not one.note)  # without a mask it is a shard
        if one.problem:
            outcome.failed.append((one.name, one.problem))
    outcome.failed.sort()
    return outcome


def _images(folders: Folders, parts: list[Any]) -> Iterator[_Image]:
    """The images of some parts of a data set; see archive.packed_parts, of files their names."""
    for part in parts:
        if folders.packed is None:
            yield _Image(part, folders.mask_path(part), os.path.join(folders.images, part))
            continue
        try:
            for name, content in read_packed(folders.packed.dataset, part):
                yield _Image(name, folders.mask_path(packed_name(content)), content=content)
        except Exception as error:  # a shard that ends too early
            yield _Image(str(part), problem=reason_of(error))


def _has_mask(image: _Image) -> bool:
    """Whether the mask of an image is there, and no other image has taken its place since."""
    if not os.path.isfile(image.mask) or not os.path.getsize(image.mask):  # a crash can leave empty files
        return False
    return not image.path or is_of(image.mask, image.path)


def segment_images(folders: Folders, source: Any, parts: list[Any]) -> list[_Image]:
    """Makes the masks of some images, in this process; see make_masks."""
    done = []
    for image in _decode(folders, parts):
        if image.image_u8 is not None:
            try:
                labels = source(image.image_u8)  # [h, w]
            except ValueError as error:  # more segments than a label map holds
                image = image._replace(image_u8=None, problem=reason_of(error))
            else:
                image = image.save(labels)
        done.append(image)
    return done


def _decode(folders: Folders, parts: list[Any]) -> Iterator[_Image]:
    for image in _images(folders, parts):
        try:
            if image.problem or _has_mask(image):
                yield image._replace(content=b'')
                continue
            content = image.content or Path(image.path).read_bytes()
            small_u8 = _at_mask_size(content, folders.size_px)
            yield image._replace(content=b'', image_u8=small_u8, note=digest(content))
        except Exception as error:  # Pillow's errors have no class in common
            yield image._replace(content=b'', problem=reason_of(error))


def _decode_list(folders: Folders, parts: list[Any]) -> list[_Image]:
    return list(_decode(folders, parts))


def _segment_on_device(images: Iterable[_Image], source: Any, batch_size: int) -> Iterator[_Image]:
    """Gathers images of one size to batches; a size that does not fill one waits for the end, if memory allows."""
    waiting: dict[tuple[int, ...], list[_Image]] = defaultdict(list)
    for decoded in images:
        if decoded.image_u8 is None:
            yield decoded
            continue
        shape = decoded.image_u8.shape
        waiting[shape].append(decoded)
        crowded = sum(map(len, waiting.values())) >= MAX_WAITING_BATCHES * batch_size
        if crowded or len(waiting[shape]) >= batch_size:
            largest = max(waiting, key=lambda key: len(waiting[key]))
            yield from _segment_batch(source, waiting.pop(largest))
    for group in waiting.values():
        yield from _segment_batch(source, group)


def _segment_batch(source: Any, group: list[_Image]) -> Iterator[_Image]:
    device = next((one.device for one in chain(source.parameters(), source.buffers())), torch.device('cpu'))
    image_pm1 = to_pm1([decoded.image_u8 for decoded in group if decoded.image_u8 is not None], device)
    labels = source.labels(image_pm1).cpu().numpy()  # [B, h, w]
    for decoded, label_map in zip(group, labels, strict=True):
        yield decoded.save(label_map)


def _check(folders: Folders, masks: CachedMasks | ArchiveMasks, parts: list[Any]) -> list[_Image]:
    """Compares some masks with their images; runs in a worker."""
    done = []
    for image in _images(folders, parts):
        problem, unreadable = image.problem, False
        try:
            content = image.content or (Path(image.path).read_bytes() if image.path else b'')
            if not problem:
                image_hw = read_picture_size(io.BytesIO(content))
                if not os.path.exists(image.mask):
                    read_picture(io.BytesIO(content))  # a torn image has none
                masks.read(image.path or packed_name(content), image_hw)
                if image.path and read_note(image.mask) not in (None, digest(content)):
                    problem = f'mask {image.mask} was made from another image; make the masks again'
        except UsageError as error:
            problem = str(error)
        except Exception as error:  # Pillow's errors have no class in common
            problem, unreadable = f'image: {reason_of(error)}', True
        done.append(_Image(image.name, image.mask if unreadable else '', made=not problem, problem=problem))
    return done
