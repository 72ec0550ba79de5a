"""Galleries: originals, their masks and their repaints side by side in one PNG."""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from timm_repaint.files import write_whole

MIN_CELL_PX = 96
CAPTION_PX = 72
GAP_PX = 4
MARGIN_RGB = (255, 255, 255)
UNKNOWN_LABEL = 255  # in semantic maps
UNKNOWN_RGB = (128, 128, 128)
NUM_LABELS = 2**16
GOLDEN_RATIO = 0.618033988749895
GRID = 'repaint-gallery'  # the text in the PNG that has the numbers of columns and rows
USUAL_GRID = '8 5'  # of files without it

Images = Sequence[np.ndarray] | np.ndarray


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """A colour a label, [65536, 3] uint8: golden-ratio steps in hue, coprime cycles of saturation and value."""
    labels = np.arange(NUM_LABELS)
    hue = (labels * GOLDEN_RATIO) % 1
    saturation = np.array([0.85, 0.55, 0.7])[labels % 3]
    value = np.array([0.95, 0.6, 0.8, 0.45])[labels % 4]
    wheel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1  # [65536, 3], HSV's three ramps
    rgb = value[:, None] * (1 - saturation[:, None] * (1 - np.clip(wheel, 0, 1)))
    palette = np.rint(255 * rgb).astype(np.uint8)
    palette[UNKNOWN_LABEL] = UNKNOWN_RGB
    return palette


def colorize_labels(labels: np.ndarray) -> np.ndarray:
    """Paints a label map: each label has its own colour, the same in every picture; 255 (unknown) is grey.

    Args:
        labels: [H, W] integers, 0 to 65535.

    Returns:
        RGB, [H, W, 3] uint8.
    """
    return _palette()[labels.astype(np.int64)]


def save_gallery(
    path: str | Path, originals_u8: Images, labels: Images, repaints_u8: Sequence[Images] | np.ndarray
) -> None:
    """Writes a PNG with a column an image and the rows original, mask, repaint 1, repaint 2, ...

    Small images are enlarged by whole factors, pixels kept, until a cell is at least 96 px. The file is written beside
    its place and moved there, so nobody sees half of it.

    Args:
        path: the PNG; its folder is made if missing.
        originals_u8: N images, [H, W, 3] uint8.
        labels: N label maps, [H, W], see colorize_labels.
        repaints_u8: one or more times N images, [H, W, 3] uint8; repaints_u8[k][n] is repaint k of image n.
    """
    rows = {'original': list(originals_u8), 'mask': [colorize_labels(label_map) for label_map in labels]}
    rows |= {f'repaint {number}': list(row) for number, row in enumerate(repaints_u8, start=1)}
    grid = PngInfo()
    grid.add_text(GRID, f'{len(originals_u8)} {len(rows)}')
    write_whole(path, partial(_draw_rows(rows).save, format='PNG', pnginfo=grid))


def read_gallery(path: str | Path) -> list[list[Image.Image]]:
    """The cells of a gallery's PNG, row by row: originals, masks, repaints 1, repaints 2, ...

    Raises:
        ValueError: if it is no gallery, or another of `pictures.UNREADABLE` if it is no image that can be read.
    """
    with Image.open(path) as file:
        file.load()
        columns, rows = map(int, getattr(file, 'text', {}).get(GRID, USUAL_GRID).split())
        sheet = file.convert('RGB')
    width, width_left = divmod(sheet.width - CAPTION_PX - GAP_PX, max(1, columns))
    height, height_left = divmod(sheet.height - GAP_PX, max(1, rows))
    if width_left or height_left or min(columns, rows - 2) < 1 or min(width, height) <= GAP_PX:
        raise ValueError(f'not a gallery of {columns} columns and {rows} rows')
    lefts, tops = ([first + n * step for n in range(count)] for first, step, count in (
        (CAPTION_PX + GAP_PX, width, columns), (GAP_PX, height, rows)
    ))  # fmt: skip
    right, below = width - GAP_PX, height - GAP_PX
    cells = [sheet.crop((left, top, left + right, top + below)) for top, left in product(tops, lefts)]
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def _draw_rows(rows: dict[str, list[np.ndarray]]) -> Image.Image:
    cells = {caption: [_enlarge(image) for image in row] for caption, row in rows.items()}
    cell_width = max(cell.width for row in cells.values() for cell in row)
    cell_height = max(cell.height for row in cells.values() for cell in row)
    num_columns = len(cells['original'])
    size = (CAPTION_PX + num_columns * (cell_width + GAP_PX) + GAP_PX, len(cells) * (cell_height + GAP_PX) + GAP_PX)
    sheet = Image.new('RGB', size, MARGIN_RGB)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for row_number, (caption, row) in enumerate(cells.items()):
        top = GAP_PX + row_number * (cell_height + GAP_PX)
        draw.text((2 * GAP_PX, top + cell_height // 2), caption, fill=(0, 0, 0), font=font, anchor='lm')
        for column, cell in enumerate(row):
            sheet.paste(cell, (CAPTION_PX + GAP_PX + column * (cell_width + GAP_PX), top))
    return sheet


def _enlarge(image_u8: np.ndarray) -> Image.Image:
    picture = Image.fromarray(np.asarray(image_u8))
    factor = max(1, -(-MIN_CELL_PX // min(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
