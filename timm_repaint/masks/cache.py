"""Masks made once and kept as PNG label maps in a tree like the images'; the command is `python -m timm_repaint.masks`.

A mask is cut from the image as timm's reader sees it (RGB, EXIF rotation not applied), scaled down to a shorter side
of size_px if it is larger. Files appear whole, so a run that was stopped goes on where it was; masks of images that
have been replaced since are made again.
"""

import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from timm_repaint.errors import UsageError
from timm_repaint.masks.archive import ArchiveMasks, PackedImage, PackedImages, is_sharded, packed_name, read_packed
from timm_repaint.masks.folder import CachedMasks, mask_name, mask_size
from timm_repaint.masks.label_png import save_labels
from timm_repaint.masks.origin import Origin, digest, find_origin, read_file
from timm_repaint.masks.workers import CHUNK, in_workers
from timm_repaint.pictures import find_pictures, read_picture
from timm_repaint.progress import progress

DEFAULT_SIZE_PX = 256
COCO_STUFF = os.path.join('stuffthingmaps', '')
MAX_WAITING_BATCHES = 8  # batches' worth of decoded images that wait for others of their size


@dataclass(frozen=True)
class Folders:
    """Where images come from and masks go to, and the masks' size (see mask_size)."""

    images: str
    masks: str
    size_px: int = DEFAULT_SIZE_PX

    def mask_path(self, name: str) -> str:
        return os.path.join(self.masks, mask_name(name))


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        made: number of new masks, or of good ones for `check_cache`.
        kept: number of masks that were there before.
        older: images that are newer than their masks, which do not say what they were made from.
        failed: image and reason of each failure.
        unreadable: how many of them are images that cannot be read, which training skips.
    """

    made: int = 0
    kept: int = 0
    older: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    unreadable: int = 0


class Done(NamedTuple):
    """One image: made, kept (neither flag nor problem) or failed."""

    name: str
    made: bool = False
    problem: str = ''
    older: bool = False
    unreadable: bool = False


class _Decoded(NamedTuple):
    name: str
    image_u8: np.ndarray | None = None  # [h, w, 3]; None: failed or kept
    problem: str = ''
    older: bool = False
    note: str = ''

    def left_out(self) -> Done:
        """What became of an image of which no mask is made."""
        return Done(self.name, problem=self.problem, older=self.older, unreadable=bool(self.problem))


Decode = Callable[[Folders, list[Any]], Iterator[_Decoded]]  # reads some of the images


def list_images(folders: Folders) -> list[str]:
    """Names of all images below a folder, in timm's order, relative to it.

    Raises:
        UsageError: if there are none, the masks would lie among them, or two images would share a mask.
    """
    if not os.path.isdir(folders.images):
        raise UsageError(f'image folder {folders.images} does not exist')
    images_real, masks_real = os.path.realpath(folders.images), os.path.realpath(folders.masks)
    if os.path.commonpath([images_real, masks_real]) == images_real:
        raise UsageError(f'mask folder {folders.masks} lies inside the images {folders.images}; choose one outside')
    names = find_pictures(folders.images)
    if os.path.isdir(os.path.join(folders.images, 'annotations')):  # COCO's layout: COCO-Stuff's maps are no images
        names = [name for name in names if not name.startswith(COCO_STUFF)]
    if not names:
        raise UsageError(f'image folder {folders.images} has no images')
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
    return _at_mask_size(read_file(os.path.join(folders.images, name)), folders.size_px)


def _at_mask_size(content: bytes, size_px: int) -> np.ndarray:
    picture = read_picture(io.BytesIO(content))
    height, width = mask_size((picture.height, picture.width), size_px)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def make_masks(
    folders: Folders,
    names: Sequence[Any],
    source: Any,
    workers: int,
    batch_size: int = 8,
    packed: PackedImages | None = None,
) -> Outcome:
    """Makes the masks that are not there yet, or were made from images that have been replaced.

    Args:
        folders: see Folders; the caller has claimed the mask folder.
        names: images, relative to folders.images; parts of a packed data set, see archive.packed_parts.
        source: a mask source. One with `on_device` segments batches of one size in this process, where it lies;
            the workers only read images for it.
        workers: number of worker processes.
        batch_size: images a batch on the device.
        packed: where the images are if they are no files.

    Raises:
        UsageError: if a mask cannot be written.
    """
    decode: Decode = _decode if packed is None else partial(_decode_packed, packed)
    chunk = 1 if packed is not None and is_sharded(packed.dataset) else CHUNK
    in_processes = partial(in_workers, items=names, workers=workers, chunk=chunk)
    if source.on_device:
        decoded = in_processes(partial(_decode_list, decode, folders))
        done = _segment_on_device(folders, decoded, source, batch_size)
    else:
        done = in_processes(partial(segment_images, folders, source, decode=decode))
    return _count(done, 'masks', _number_of(names, packed))


def check_cache(folders: Folders, names: list[str], workers: int) -> Outcome:
    """Compares a cache with its images: masks that are missing, unreadable, of a wrong size or with wrong labels.

    Raises:
        UsageError: if folders.masks is no cache.
    """
    masks = CachedMasks(folders.masks, folders.images)
    return _count(in_workers(partial(_check, folders, masks), names, workers), 'check', len(names))


def check_packed_cache(folders: Folders, parts: Sequence[Any], workers: int, packed: PackedImages) -> Outcome:
    """The same for a packed data set.

    Raises:
        UsageError: if folders.masks is no cache.
    """
    check = partial(_check_packed, ArchiveMasks(folders.masks), packed)
    return _count(in_workers(check, parts, workers, chunk=1), 'check', _number_of(parts, packed))


def _number_of(names: Sequence[Any], packed: PackedImages | None) -> int:
    """How many images there are, for the progress; 0 where shards do not say it."""
    if packed is None or not is_sharded(packed.dataset):
        return len(names)
    return packed.dataset.reader.num_samples or 0


def _count(done: Iterator[Done], label: str, total: int) -> Outcome:
    outcome = Outcome()
    for one in progress(done, label, total):
        outcome.made += one.made
        outcome.kept += not one.made and not one.problem
        outcome.older += [one.name] if one.older else []
        outcome.unreadable += one.unreadable
        if one.problem:
            outcome.failed.append((one.name, one.problem))
    outcome.failed.sort()
    return outcome


def _known_origin(folders: Folders, name: str) -> Origin | None:
    """What is known of the image of a mask that is there; None: there is none."""
    path = folders.mask_path(name)
    try:
        if os.stat(path).st_size == 0:  # a crash of the machine can leave empty files
            return None
    except OSError:
        return None
    return find_origin(path, os.path.join(folders.images, name))


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'


def segment_images(folders: Folders, source: Any, names: list[Any], decode: Decode | None = None) -> list[Done]:
    """Makes the masks of some images, in this process; see make_masks."""
    done = []
    for decoded in (decode or _decode)(folders, names):
        name, image_u8 = decoded.name, decoded.image_u8
        if image_u8 is None:
            done.append(decoded.left_out())
            continue
        try:
            labels = source(image_u8)  # [h, w]
        except ValueError as error:  # more segments than a label map holds
            done.append(Done(name, problem=_reason(error)))
            continue
        save_labels(folders.mask_path(name), labels, decoded.note)
        done.append(Done(name, made=True))
    return done


def _decode(folders: Folders, names: list[str]) -> Iterator[_Decoded]:
    for name in names:
        try:
            origin = _known_origin(folders, name)
            if origin in (None, Origin.OTHER):
                content = read_file(os.path.join(folders.images, name))
                yield _Decoded(name, _at_mask_size(content, folders.size_px), note=digest(content))
            else:
                yield _Decoded(name, older=origin is Origin.UNKNOWN)
        except Exception as error:  # Pillow's errors have no class in common
            yield _Decoded(name, problem=_reason(error))


def _decode_packed(packed: PackedImages, folders: Folders, parts: list[Any]) -> Iterator[_Decoded]:
    for part in parts:
        try:
            for image in read_packed(packed.dataset, part):
                yield _decode_content(folders, image)
        except Exception as error:  # a shard that ends too early
            yield _Decoded(str(part), problem=_reason(error))


def _decode_content(folders: Folders, image: PackedImage) -> _Decoded:
    name = packed_name(image.content)
    try:
        if os.path.isfile(folders.mask_path(name)) and os.path.getsize(folders.mask_path(name)):
            return _Decoded(name)
        return _Decoded(name, _at_mask_size(image.content, folders.size_px), note=digest(image.content))
    except Exception as error:  # Pillow's errors have no class in common
        return _Decoded(image.name, problem=_reason(error))


def _decode_list(decode: Decode, folders: Folders, names: list[Any]) -> list[_Decoded]:
    return list(decode(folders, names))


def _segment_on_device(folders: Folders, images: Iterable[_Decoded], source: Any, batch_size: int) -> Iterator[Done]:
    """Gathers images of one size to batches; a size that does not fill one waits for the end, if memory allows."""
    waiting: dict[tuple[int, ...], list[_Decoded]] = defaultdict(list)
    for decoded in images:
        if decoded.image_u8 is None:
            yield decoded.left_out()
            continue
        shape = decoded.image_u8.shape
        waiting[shape].append(decoded)
        crowded = sum(map(len, waiting.values())) >= MAX_WAITING_BATCHES * batch_size
        if crowded or len(waiting[shape]) >= batch_size:
            largest = max(waiting, key=lambda key: len(waiting[key]))
            yield from _segment_batch(folders, source, waiting.pop(largest))
    for group in waiting.values():
        yield from _segment_batch(folders, source, group)


def _segment_batch(folders: Folders, source: Any, group: list[_Decoded]) -> Iterator[Done]:
    device = next((weight.device for weight in source.parameters()), torch.device('cpu'))  # superpixels have none
    images_u8 = np.stack([decoded.image_u8 for decoded in group if decoded.image_u8 is not None])  # [B, h, w, 3]
    image_pm1 = torch.from_numpy(images_u8).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1  # [B, 3, h, w]
    labels = source.labels(image_pm1).cpu().numpy()  # [B, h, w]
    for decoded, label_map in zip(group, labels, strict=True):
        save_labels(folders.mask_path(decoded.name), label_map, decoded.note)
        yield Done(decoded.name, made=True)


def _check(folders: Folders, masks: CachedMasks, names: list[str]) -> list[Done]:
    """Compares some masks with their images; runs in a worker."""
    done = []
    for name in names:
        path = os.path.join(folders.images, name)
        try:
            with Image.open(path) as picture:
                image_hw = (picture.height, picture.width)
            masks.read(path, image_hw)
            older = find_origin(folders.mask_path(name), path) is Origin.UNKNOWN
        except UsageError as error:
            done.append(Done(name, problem=str(error)))
        except Exception as error:  # Pillow's errors have no class in common
            done.append(Done(name, problem=f'image: {_reason(error)}'))
        else:
            done.append(Done(name, problem='older than its image') if older else Done(name, made=True))
    return done


def _check_packed(masks: ArchiveMasks, packed: PackedImages, parts: list[Any]) -> list[Done]:
    """Compares the masks of some parts of a packed data set with their images; runs in a worker."""
    done = []
    for part in parts:
        for image in read_packed(packed.dataset, part):
            try:
                with Image.open(io.BytesIO(image.content)) as picture:
                    image_hw = (picture.height, picture.width)
                masks.of_image(packed_name(image.content), image_hw)
            except UsageError as error:
                done.append(Done(image.name, problem=str(error)))
            except Exception as error:  # Pillow's errors have no class in common
                done.append(Done(image.name, problem=f'image: {_reason(error)}'))
            else:
                done.append(Done(image.name, made=True))
    return done
