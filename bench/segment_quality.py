"""How well segments follow objects: `python -m bench.segment_quality COCO IMAGES --picture FILE` prints tables.

COCO is a folder in COCO's layout with COCO-Stuff's label maps beside it, IMAGES a folder of images without any. All are
scaled to a shorter side of 224 px and cropped to the middle, as in evaluation; label 255 of COCO-Stuff is left out.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from timm_repaint.markdown import markdown_table
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks, has_opencv
from timm_repaint.masks.superpixels import SuperpixelMasks

SIDE_PX = 224
TOLERANCE_PX = 2
SPECK_PX = 10
UNKNOWN = 255
SUFFIXES = ('.jpg', '.jpeg', '.png')
EDGE_COLOUR = (255, 255, 0)
PICTURE_SIDE_PX = 160


def sources() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The sources that are there, by the name in the tables."""
    backends = ('skimage', 'opencv') if has_opencv() else ('skimage',)
    return {f'fh, {name}': FelzenszwalbMasks(backend=name) for name in backends} | {'superpixels': SuperpixelMasks()}


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, [H, W] bool."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    found[:-1] |= labels[1:] != labels[:-1]
    return found


def boundary_recall(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of the known objects' boundaries with a segment's boundary at most TOLERANCE_PX away."""
    wanted = boundaries(truth) & ~ndimage.binary_dilation(truth == UNKNOWN)
    near = ndimage.binary_dilation(boundaries(labels), np.ones((2 * TOLERANCE_PX + 1,) * 2))
    return float((near & wanted).sum() / max(1, wanted.sum()))


def undersegmentation(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pixels that segments have on the smaller side of an object's boundary.

    Source: P. Neubert and P. Protzel, Superpixel benchmark and comparison, 2012.
    """
    known = truth != UNKNOWN
    _, segments = np.unique(labels[known], return_inverse=True)
    _, objects = np.unique(truth[known], return_inverse=True)
    common = np.zeros((segments.max() + 1, objects.max() + 1))
    np.add.at(common, (segments, objects), 1)
    return float(np.minimum(common, common.sum(1, keepdims=True) - common).sum() / known.sum())


def explained(labels: np.ndarray, image_u8: np.ndarray) -> float:
    """Share of the colours' variance that the segments' mean colours explain."""
    _, segments = np.unique(labels, return_inverse=True)
    segments, pixels = segments.ravel(), image_u8.reshape(-1, 3).astype(float)
    sums = np.stack([np.bincount(segments, channel) for channel in pixels.T], axis=1)
    means = (sums / np.bincount(segments)[:, None])[segments]
    return float(1 - ((pixels - means) ** 2).sum() / max(1e-9, ((pixels - pixels.mean(0)) ** 2).sum()))


def specks(labels: np.ndarray) -> tuple[int, int]:
    """Segments below SPECK_PX, and connected pieces (by the four neighbours) of segments below it."""
    _, sizes = np.unique(labels, return_counts=True)
    pieces = 0
    for segment in np.unique(labels):
        pieces_of, _ = ndimage.label(labels == segment)
        pieces += int((np.bincount(pieces_of.ravel())[1:] < SPECK_PX).sum())
    return int((sizes < SPECK_PX).sum()), pieces


def crop(picture: Image.Image, resample: Image.Resampling) -> np.ndarray:
    """The middle of a picture whose shorter side is scaled to SIDE_PX."""
    scale = SIDE_PX / min(picture.size)
    picture = picture.resize([max(SIDE_PX, round(side * scale)) for side in picture.size], resample)
    left, top = (picture.width - SIDE_PX) // 2, (picture.height - SIDE_PX) // 2
    return np.asarray(picture.crop((left, top, left + SIDE_PX, top + SIDE_PX)))


def read_images(folder: Path) -> dict[Path, np.ndarray]:
    paths = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    return {path: crop(Image.open(path).convert('RGB'), Image.Resampling.BICUBIC) for path in paths}


def row(name: str, maps: list[np.ndarray], images: list[np.ndarray], truths: list[np.ndarray] | None) -> list[Any]:
    """Means of a source's label maps, in %, where a number is no count."""
    counts = [len(np.unique(labels)) for labels in maps]
    pairs = list(zip(maps, images, strict=True))
    small, pieces = np.mean([specks(labels) for labels in maps], axis=0)
    cells: list[Any] = [name]
    if truths is not None:
        both = list(zip(maps, truths, strict=True))
        cells += [f'{100 * np.mean([measure(*one) for one in both]):.1f}' for measure in MEASURES]
    cells += [f'{np.mean(counts):.0f} ({min(counts)} to {max(counts)})']
    cells += [f'{100 * np.mean([explained(*one) for one in pairs]):.1f}']
    cells += [f'{100 * np.mean([boundaries(labels).mean() for labels in maps]):.1f}', f'{small:.1f}', f'{pieces:.0f}']
    return cells


MEASURES = (boundary_recall, undersegmentation)
OF_OBJECTS = ['boundary recall', 'undersegmentation']
OF_IMAGES = [
    'segments',
    'variance explained',
    'boundary pixels',
    f'segments < {SPECK_PX} px',
    f'pieces < {SPECK_PX} px',
]


def with_boundaries(image_u8: np.ndarray, labels: np.ndarray) -> np.ndarray:
    drawn = image_u8.copy()
    drawn[boundaries(labels)] = EDGE_COLOUR
    return drawn


def draw(images: list[np.ndarray], maps: dict[str, list[np.ndarray]], file: str) -> None:
    """A column an image: the image, then its segments by each source."""
    rows = [np.concatenate(images, axis=1)]
    rows += [np.concatenate(list(map(with_boundaries, images, of_source)), axis=1) for of_source in maps.values()]
    picture = Image.fromarray(np.concatenate(rows))
    scale = PICTURE_SIDE_PX / SIDE_PX
    picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS).save(file, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('coco', type=Path, metavar='COCO')
    parser.add_argument('images', type=Path, metavar='IMAGES')
    parser.add_argument('--picture', metavar='FILE', help='draw the segments of eight images')
    args = parser.parse_args()
    for folder in sorted(args.coco.glob('*2017')):
        found = read_images(folder)
        maps = args.coco / 'stuffthingmaps' / folder.name
        truths = [crop(Image.open(maps / f'{path.stem}.png'), Image.Resampling.NEAREST) for path in found]
        images = list(found.values())
        rows = [row(name, [source(image) for image in images], images, truths) for name, source in sources().items()]
        print(markdown_table([f'{folder.name}, {len(images)} images', *OF_OBJECTS, *OF_IMAGES], rows), flush=True)
    images = list(read_images(args.images).values())
    cut = {name: [source(image) for image in images] for name, source in sources().items()}
    rows = [row(name, maps, images, None) for name, maps in cut.items()]
    print(markdown_table([f'{args.images.name}, {len(images)} images', *OF_IMAGES], rows))
    if args.picture:
        step = max(1, len(images) // 8)
        draw(images[::step][:8], {name: maps[::step][:8] for name, maps in cut.items()}, args.picture)


if __name__ == '__main__':
    main()
