"""Images beside their repaints, to look at: a picture, or a page that holds all it shows."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image, ImageOps

from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.files import check_ours, write_text, write_whole
from timm_repaint.masks.label_png import image_comment, png_info, read_note
from timm_repaint.painting.brush import Brush, load_image, working_image
from timm_repaint.pictures import data_url

SHEET_ROWS, SHEET_COPIES, PAGE_ROWS = 8, 4, 100
CELL_PX, GAP_PX = 224, 6
SHEET_NOTE = '0'  # what a sheet of ours has where repaints have their image's mark
TEMPLATE = Path(__file__).with_name('before_after.html')
PAGE_MARK = TEMPLATE.read_text().partition('\n')[0]
SHEET_ENDINGS = ('.png', '.jpg')


def check_places(sheet: str | None, page: str | None) -> None:
    """Refuse to write over files of others.

    Raises:
        UsageError: if there is one, or a sheet's ending is unknown.
    """
    if sheet and Path(sheet).suffix not in SHEET_ENDINGS:
        raise UsageError(f'--sheet {sheet} is a picture; end its name in {" or ".join(SHEET_ENDINGS)}')
    if page:
        check_ours(page, PAGE_MARK, 'page', '--html')
    with as_mistake(f'cannot read {sheet}'):
        if sheet and os.path.exists(sheet) and read_note(sheet) != SHEET_NOTE:
            raise UsageError(f'{sheet} was there before and is no sheet of ours: give another --sheet')


def spread(stems: dict[str, str], count: int) -> list[tuple[str, str]]:
    """`count` images, or all, evenly spread; names and stems."""
    items = list(stems.items())
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def row_of(brush: Brush, name: str, stem: str, copies: int | None = None) -> list[Image.Image]:
    """An image and its first repaints, turned as their EXIF says, each as large as a cell."""
    pictures = [load_image(path.read_bytes()) for path in (brush.root / name, *brush.targets(stem)[:copies])]
    return [ImageOps.contain(working_image(picture, CELL_PX), (CELL_PX, CELL_PX)) for picture in pictures]


def write_sheet(path: str, brush: Brush, stems: dict[str, str]) -> None:
    """A picture with a row an image: the original, then repaints."""
    rows = [row_of(brush, *one, SHEET_COPIES) for one in spread(stems, SHEET_ROWS)]
    heights = [max(picture.height for picture in row) + GAP_PX for row in rows]
    sheet = Image.new('RGB', (max(map(len, rows)) * (CELL_PX + GAP_PX) + GAP_PX, sum(heights) + GAP_PX), 'white')
    top = GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP_PX + column * (CELL_PX + GAP_PX), top))
        top += height
    options: dict[str, Any] = {'format': 'PNG', 'pnginfo': png_info(SHEET_NOTE)}
    if Path(path).suffix == '.jpg':
        options = {'format': 'JPEG', 'quality': 85, 'comment': image_comment(SHEET_NOTE)}
    write_whole(path, partial(sheet.save, **options))


def write_page(path: str, brush: Brush, stems: dict[str, str]) -> None:
    """A page that opens without anything beside it."""
    shown = spread(stems, PAGE_ROWS)
    pictures = {name: [data_url(one, 'jpeg', quality=80) for one in row_of(brush, name, stem)] for name, stem in shown}
    template = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True).get_template(TEMPLATE.name)
    text = template.render(title=brush.root.resolve().name, rows=pictures, total=len(stems))
    write_text(path, text.encode(errors='replace').decode())


def show(sheet: str | None, page: str | None, brush: Brush, stems: dict[str, str]) -> Sequence[str]:
    """Write those that were asked for, if anything was painted; where they are."""
    if not stems:
        return []
    if sheet:
        write_sheet(sheet, brush, stems)
    if page:
        write_page(page, brush, stems)
    return [place for place in (sheet, page) if place]
