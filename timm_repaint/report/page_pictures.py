"""The galleries of a page: small pictures inside the page, within a number of bytes; masks as outlines."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from timm_repaint.errors import one_line
from timm_repaint.monitor.gallery import read_gallery
from timm_repaint.pictures import UNREADABLE, data_url
from timm_repaint.report.page_runs import Group, ShownRun

PICTURES_BYTES = 3_000_000  # of all galleries: with bokeh's 1.3 MB and the curves a page stays below 5 MB
SIZES = ((160, 80), (128, 75), (112, 70), (96, 60), (72, 50))  # longer side in pixels, quality of WebP
OUTLINE_RGB = (255, 225, 0)


def draw_galleries(groups: Sequence[Group]) -> tuple[list[dict[str, Any]], list[str]]:
    """The galleries of each group's first run that has some, and remarks on what is left out."""
    chosen = [next((run for run in group.runs if run.galleries()), None) for group in groups]
    runs = [run for run in chosen if run is not None]
    drawn = [draw_gallery(run, PICTURES_BYTES // len(runs)) for run in runs]
    return [gallery for gallery, _ in drawn if gallery], [remark for _, remarks in drawn for remark in remarks]


def draw_gallery(run: ShownRun, most_bytes: int) -> tuple[dict[str, Any], list[str]]:
    """A run's pictures as `data:` addresses, a list with one a column each; {} without any that can be read.

    Args:
        run: The run.
        most_bytes: Pictures become smaller, and then fewer, to fit.

    Returns:
        'run' (its name), 'originals', 'outlines' (of the masks, to lie over the others) and 'repaints' (by epoch, the
        copies of an image below each other); and remarks.
    """
    paths = dict(reversed(run.galleries().items()))
    fixed: tuple[list[str], list[str]] | None = None
    repaints, remarks, size, step = {}, [], SIZES[-1], 1
    for number, (epoch, path) in enumerate(paths.items()):
        if number % step:
            continue
        try:
            changed = path.stat().st_mtime_ns
            if fixed is None:
                size, step = _choose_size(path, changed, most_bytes // len(paths))
                fixed = draw_fixed(path, changed, *size)
            repaints[epoch] = draw_repaints(path, changed, *size)
        except UNREADABLE as error:
            remarks.append(one_line(f'{path} is left out: {error}'))
    if fixed is None:
        return {}, remarks
    if step > 1:
        remarks.append(f'{run.name}: {len(repaints)} of {len(paths)} galleries are shown, to keep the page small')
    pictures = {'originals': fixed[0], 'outlines': fixed[1], 'repaints': dict(sorted(repaints.items()))}
    return {'run': run.name, **pictures}, remarks


def _choose_size(path: Path, changed: int, most_bytes: int) -> tuple[tuple[int, int], int]:
    """The largest of `SIZES` at which a gallery has so few bytes, and of how many galleries one can be shown."""
    sizes = {size: sum(map(len, draw_repaints(path, changed, *size))) for size in SIZES}
    fitting = [size for size, count in sizes.items() if count <= most_bytes]
    return (fitting[0], 1) if fitting else (SIZES[-1], -(-sizes[SIZES[-1]] // max(1, most_bytes)))


@lru_cache(maxsize=1024)
def draw_repaints(path: Path, changed: int, size_px: int, quality: int) -> list[str]:
    """The repaints of a gallery, a strip of all copies for each image; `changed` is the file's time, for the cache."""
    _, _, *copies = read_gallery(path)
    strips = [np.concatenate([_shrink(cell, size_px) for cell in column]) for column in zip(*copies, strict=True)]
    return [data_url(Image.fromarray(strip), 'webp', quality=quality) for strip in strips]


@lru_cache(maxsize=1024)
def draw_fixed(path: Path, changed: int, size_px: int, quality: int) -> tuple[list[str], list[str]]:
    """The originals of a gallery and the outlines of their masks."""
    originals, masks, *_ = read_gallery(path)
    small = [_shrink(cell, size_px) for cell in originals]
    outlines = [_outline(mask, cell.size) for mask, cell in zip(masks, small, strict=True)]
    return [data_url(cell, 'webp', quality=quality) for cell in small], outlines


def _shrink(cell: Image.Image, size_px: int) -> Image.Image:
    small = cell.copy()
    small.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    return small


def _outline(mask: Image.Image, size: tuple[int, int]) -> str:
    """Where a segment ends, as a transparent picture of this size."""
    labels = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    edges = np.zeros(labels.shape[:2], np.uint8)
    edges[:, 1:] |= (labels[:, 1:] != labels[:, :-1]).any(-1)
    edges[1:] |= (labels[1:] != labels[:-1]).any(-1)
    lines = Image.fromarray(edges, 'L').convert('P')
    lines.putpalette([0, 0, 0, *OUTLINE_RGB])
    return data_url(lines, 'png', transparency=0, bits=1, optimize=True)
