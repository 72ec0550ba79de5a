"""Galleries: originals, their masks and their repaints side by side in one PNG."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from timm_repaint.files import write_whole

MIN_CELL_PX = 96
CAPTION_PX = 72
GAP_PX = 4
MARGIN = 255
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
    grid = np.asarray(sheet)[GAP_PX:, CAPTION_PX + GAP_PX :].reshape(rows, height, columns, width, 3)
    cells = grid[:, : height - GAP_PX, :, : width - GAP_PX]
    return [[Image.fromarray(row[:, column]) for column in range(columns)] for row in cells]


def _draw_rows(rows: dict[str, list[np.ndarray]]) -> Image.Image:
    cells = np.stack([[_enlarge(image) for image in row] for row in rows.values()])  # [rows, columns, h, w, 3]
    cells = np.pad(cells, ((0, 0), (0, 0), (0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=MARGIN)
    num_rows, columns, height, width, _ = cells.shape
    pixels = cells.transpose(0, 2, 1, 3, 4).reshape(num_rows * height, columns * width, 3)
    margins = ((GAP_PX, 0), (CAPTION_PX + GAP_PX, 0), (0, 0))
    sheet = Image.fromarray(np.pad(pixels, margins, constant_values=MARGIN))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, caption in enumerate(rows):
        middle = GAP_PX + number * height + (height - GAP_PX) // 2
        draw.text((2 * GAP_PX, middle), caption, fill=(0, 0, 0), font=font, anchor='lm')
    return sheet


def _enlarge(image_u8: np.ndarray) -> np.ndarray:
    factor = max(1, -(-MIN_CELL_PX // min(image_u8.shape[:2])))
    return np.asarray(image_u8).repeat(factor, 0).repeat(factor, 1)
