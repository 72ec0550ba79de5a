"""Speed and size of masks: `python -m bench.masks IMAGES` prints a table. IMAGES is an image folder, by classes.

Two ways to do the same work take turns (A B A B …), and the table shows the median of the ratios of neighbours: the
speed of a shared machine changes slowly, so it falls out of a ratio.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import ImageDataset, create_loader

from bench.segment_quality import read_images, sources
from timm_repaint.data.masked import extend_normalization
from timm_repaint.data.named import NamedImages
from timm_repaint.data.stored import StoredMaskImages
from timm_repaint.masks.cache import Folders, list_images, segment_images
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks, has_opencv
from timm_repaint.masks.folder import CachedMasks
from timm_repaint.masks.manifest import claim_folder, describe
from timm_repaint.masks.workers import in_workers

BATCH_SIZE = 8
CUT_AT_ONCE = 32
IMAGE_SIZE_PX = 224


def speed_ratio(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median speed of `first` as a multiple of `second`'s, and each one's median seconds."""
    first(), second()  # files into the cache of the file system
    times = [tuple(timeit.timeit(work, number=1) for work in (first, second)) for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return statistics.median(slow / fast for fast, slow in times), medians[0], medians[1]


def time_cutting(images: str, rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Each source's speed with a batch, in turn; a source that works on a device gets it there.

    Returns:
        By source 'ms' an image, median, and 'best_ms'; of one that works on a device the share of pixels in the
        'same' segment as on a CPU.
    """
    images_u8 = list(read_images(Path(images)).values())
    batch_u8 = [images_u8[index % len(images_u8)] for index in range(CUT_AT_ONCE)]
    image_pm1 = torch.from_numpy(np.stack(batch_u8)).permute(0, 3, 1, 2).to(device) / 127.5 - 1

    def cut(source: Any) -> None:
        if source.on_device:
            source.to(device).labels(image_pm1).flatten()[0].item()  # waits for the device
        else:
            for image_u8 in batch_u8:
                source(image_u8)

    times: dict[str, list[float]] = {name: [] for name in sources()}
    for _ in range(rounds):
        for name, source in sources().items():
            times[name].append(timeit.timeit(partial(cut, source), number=1))
    found = {}
    for name, seconds in times.items():
        median, best = (1000 * value / CUT_AT_ONCE for value in (statistics.median(seconds), min(seconds)))
        print(f'{name}: {median:.2f} ms an image, at best {best:.2f} ({1000 / best:.0f} images/s)', flush=True)
        found[name] = {'ms': median, 'best_ms': best}
    for name, source in sources().items():
        if source.on_device:
            there, here = (source.to(kind).labels(image_pm1.to(kind)).cpu() for kind in (device, torch.device('cpu')))
            found[name]['same'] = (there == here).float().mean().item()
            print(f'{name}: {100 * found[name]["same"]:.2f} % of pixels in the same segment as on a CPU', flush=True)
    return found


def make_cache(images: str, backend: str, workers: int, mask_dir: str | None = None) -> None:
    """Makes all masks of a folder, in mask_dir or in a folder that goes away."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = Folders(images, mask_dir or scratch)
        source = FelzenszwalbMasks(backend=backend)
        claim_folder(folders.masks, describe('fh', source, folders.size_px))
        list(in_workers(partial(segment_images, folders, source), list_images(folders), workers))


def repeat_images(images: str, copies: int, folder: str) -> str:
    """A folder of links to all images, several times over: enough work that the start of processes does not count."""
    for copy in range(copies):
        os.makedirs(os.path.join(folder, 'images'), exist_ok=True)
        os.symlink(os.path.abspath(images), os.path.join(folder, 'images', str(copy)))
    return os.path.join(folder, 'images')


def build_loader(images: str, masks: str | None, workers: int) -> Any:
    """timm's training loader at 224 px with its default augmentation."""
    named = NamedImages(ImageDataset(images))
    dataset: Any = named if masks is None else StoredMaskImages(named, CachedMasks(masks, images))
    loader = create_loader(
        dataset,
        (3, IMAGE_SIZE_PX, IMAGE_SIZE_PX),
        BATCH_SIZE,
        is_training=True,
        interpolation='random',
        num_workers=workers,
        persistent_workers=workers > 0,
        device=torch.device('cpu'),
    )
    if masks is not None:
        extend_normalization(loader)
    return loader


def read_all(loader: Any, epochs: int) -> None:
    """Goes through the images, cut out alike each time."""
    random.seed(0)
    torch.manual_seed(0)
    for _ in range(epochs):
        for _ in loader:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('images', metavar='IMAGES')
    parser.add_argument('--rounds', type=int, default=7, metavar='N', help='timings of each pair')
    parser.add_argument('--loader-workers', type=int, default=2, metavar='N', help='0: all in this process')
    parser.add_argument('--loader-epochs', type=int, default=4, metavar='N', help='passes over the images a timing')
    parser.add_argument('--copies', type=int, default=4, metavar='N', help='times the images for the two workers')
    parser.add_argument('--device', default='cpu', help='where superpixels are cut')
    parser.add_argument('--cutting-only', action='store_true', help='no cache and no loader')
    parser.add_argument('--output', metavar='FILE', help='JSON file for the speed of cutting')
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = time_cutting(args.images, args.rounds, torch.device(args.device))
    if args.output:
        Path(args.output).write_text(json.dumps(found, indent=1) + '\n')
    if args.cutting_only:
        return
    best = 'opencv' if has_opencv() else 'skimage'
    with tempfile.TemporaryDirectory() as scratch:
        make_cache(args.images, best, 1, scratch)
        sizes = [path.stat().st_size for path in Path(scratch).rglob('*.png')]
        print(f'bytes a mask: mean {statistics.mean(sizes):.0f}, largest {max(sizes)} ({len(sizes)} masks)', flush=True)
        masked, plain = (
            partial(read_all, build_loader(args.images, masks, args.loader_workers), args.loader_epochs)
            for masks in (scratch, None)
        )
        ratio = speed_ratio(masked, plain, args.rounds)
        show('loader: cached masks to none', *ratio, len(sizes) * args.loader_epochs)
    one = partial(make_cache, args.images, best, 1)
    if best == 'opencv':
        ratio = speed_ratio(one, partial(make_cache, args.images, 'skimage', 1), min(args.rounds, 3))
        show('fh cache: opencv to skimage, one process', *ratio, len(sizes))
    with tempfile.TemporaryDirectory() as scratch:
        repeated = repeat_images(args.images, args.copies, scratch)
        one, two = (partial(make_cache, repeated, best, workers) for workers in (1, 2))
        ratio = speed_ratio(two, one, min(args.rounds, 5))
        show('fh cache: two workers to one', *ratio, len(sizes) * args.copies)


def show(label: str, ratio: float, first_s: float, second_s: float, images: int) -> None:
    print(f'{label}: {ratio:.2f} times ({images / first_s:.0f} and {images / second_s:.0f} images/s)', flush=True)


if __name__ == '__main__':
    main()
