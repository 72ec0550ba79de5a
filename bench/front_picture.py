"""The README's picture: scikit-image's photographs, their segments, and repaints by the generator that comes along.

python -m bench.front_picture docs/repaints.jpg
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from skimage.segmentation import mark_boundaries

from timm_repaint import FelzenszwalbMasks, load_repainter
from timm_repaint.painting.brush import repaint_image

SIZE_PX, GAP_PX, HEAD_PX, COPIES = 208, 6, 34, 3
# Left, top and side of a square of each photograph, in px.
PHOTOGRAPHS = {'astronaut': (60, 0, 400), 'chelsea': (75, 0, 300), 'coffee': (90, 0, 400), 'rocket': (140, 0, 427)}


def square(name: str) -> np.ndarray:
    """A photograph's square, [SIZE_PX, SIZE_PX, 3] uint8."""
    left, top, side = PHOTOGRAPHS[name]
    picture = Image.fromarray(getattr(data, name)()).crop((left, top, left + side, top + side))
    return np.asarray(picture.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('picture', type=Path, help='the file that is written')
    parser.add_argument('--seed', type=int, default=0, help='of the random latents (default: 0)')
    args = parser.parse_args()
    repainter = load_repainter('pretrained').eval()
    cut = FelzenszwalbMasks()
    step = SIZE_PX + GAP_PX
    sheet = Image.new('RGB', ((2 + COPIES) * step - GAP_PX, HEAD_PX + len(PHOTOGRAPHS) * step - GAP_PX), 'white')
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    heads = ('original', 'segments', *(f'repaint {number}' for number in range(1, COPIES + 1)))
    for column, head in enumerate(heads):
        draw.text((column * step + SIZE_PX / 2, HEAD_PX / 2 - 1), head, fill='black', font=font, anchor='mm')
    for row, name in enumerate(PHOTOGRAPHS):
        image = square(name)
        labels = cut(image)
        outlines = mark_boundaries(image, labels.astype(int), color=(1, 1, 0), mode='thick')
        generator = torch.Generator().manual_seed(args.seed + row)
        repaints = repaint_image(repainter, image, labels, COPIES, generator)
        for column, cell in enumerate((image, np.rint(255 * outlines).astype(np.uint8), *repaints)):
            sheet.paste(Image.fromarray(cell), (column * step, HEAD_PX + row * step))
    sheet.save(args.picture, quality=82)


if __name__ == '__main__':
    main()
