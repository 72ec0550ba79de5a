"""Repaint a folder of images with a trained run: `timm-repaint paint RUN IMAGES OUT --copies 3`.

OUT mirrors IMAGES: `cat/7.jpg` becomes `cat/7-1.png`, `cat/7-2.png`, … of the image's own size. Labels stay true:
shapes stay where they are. A second call goes on where the first one stopped.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.readers.img_extensions import get_img_extensions

from timm_repaint.data.samples import to_pm1, to_u8
from timm_repaint.errors import UsageError, run_command
from timm_repaint.files import write_whole
from timm_repaint.masks.choice import MaskOptions, create_mask_source
from timm_repaint.options.run_file import read_args
from timm_repaint.painters import AnyRepainter
from timm_repaint.progress import progress
from timm_repaint.repainter import MIN_SIZE_PX
from timm_repaint.saved import load_repainter

# What Pillow raises for a broken or suspiciously large file.
UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='timm-repaint paint', description='Repaint a folder of images.')
    parser.add_argument('run', metavar='RUN', help='folder of a train.py --repaint run, or a checkpoint in it')
    parser.add_argument('images', metavar='IMAGES', help='folder of images, with folders inside as deep as you like')
    parser.add_argument('out', metavar='OUT', help='where the repaints go')
    parser.add_argument('--copies', type=int, default=3, metavar='N', help='repaints of each image (default: 3)')
    parser.add_argument(
        '--max-size',
        type=int,
        default=512,
        metavar='PX',
        help='larger images are painted at this length of their longer side and enlarged again (default: 512)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the random latents (default: 0)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='where to compute')
    args = parser.parse_args(argv)
    if args.copies < 1:
        parser.error(f'--copies is {args.copies}; it has to be at least 1')
    if args.max_size < MIN_SIZE_PX:
        parser.error(f'--max-size is {args.max_size}; the generator paints from {MIN_SIZE_PX} px on')
    if not os.path.isdir(args.images):
        parser.error(f'{args.images} is no folder')
    images, out = os.path.realpath(args.images), os.path.realpath(args.out)
    if os.path.commonpath([images, out]) == images:
        parser.error(f'{args.out} lies in {args.images}: its repaints would be repainted; give a folder outside')
    return args


def checkpoint_path(run: str) -> Path:
    """The checkpoint of a run folder, or the file itself.

    Raises:
        UsageError: if there is none.
    """
    path = Path(run) / 'last.pth.tar' if os.path.isdir(run) else Path(run)
    if not path.is_file():
        raise UsageError(f'{path} does not exist: RUN is the output folder of a train.py --repaint run')
    return path


def run_options(checkpoint: Path) -> argparse.Namespace:
    """The options of the run beside whose checkpoint `args.yaml` lies: its mask source is used again.

    Raises:
        UsageError: if there is no `args.yaml`.
    """
    advice = f'it says how the masks of {checkpoint.name} were made; copy it there'
    return argparse.Namespace(**read_args(checkpoint.parent, advice))


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, in order, as timm finds them."""
    extensions = get_img_extensions(as_set=True)
    return sorted(path for path in folder.rglob('*') if path.suffix.lower() in extensions)


def target_stems(images: list[Path]) -> list[Path]:
    """Names without an ending; images that differ in nothing but their ending keep it."""
    count = Counter(path.with_suffix('') for path in images)
    return [path if count[path.with_suffix('')] > 1 else path.with_suffix('') for path in images]


def load_image(path: Path, max_size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The image in RGB at the size to paint at, and its own size (width, height)."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert('RGB')
    size = image.size
    scale = min(1.0, max_size / max(size))
    width, height = (max(MIN_SIZE_PX, round(side * scale)) for side in size)
    working = (width, height)
    return (image if working == size else image.resize(working, Image.Resampling.BICUBIC)), size


@torch.inference_mode()
def repaint_image(
    repainter: AnyRepainter, image_u8: np.ndarray, labels: np.ndarray, copies: int, generator: torch.Generator
) -> Iterator[np.ndarray]:
    """Repaints [H, W, 3] uint8 of one image [H, W, 3] uint8 under its label map [H, W]."""
    device = generator.device
    image_pm1 = to_pm1([image_u8]).to(device)
    label_tensor = torch.from_numpy(labels.astype(np.int64)).to(device)[None]
    for _ in range(copies):
        yield to_u8(repainter(image_pm1, label_tensor, generator).image_pm1[0])


def main(argv: list[str] | None = None) -> int:
    """Repaint all images; returns 1 if some could not be read (they are named), else 0."""
    args = parse_args(argv)
    checkpoint = checkpoint_path(args.run)
    repainter = load_repainter(str(checkpoint)).to(args.device).eval()
    masks: Any = create_mask_source(MaskOptions.of(run_options(checkpoint)))
    if masks.on_device:
        masks.to(args.device)
    images, root, out = find_images(Path(args.images)), Path(args.images), Path(args.out)
    unreadable = []
    stems = target_stems(images)
    for index, path in enumerate(progress(images, 'repaint')):
        stem = out / stems[index].relative_to(root)
        targets = [stem.with_name(f'{stem.name}-{copy}.png') for copy in range(1, args.copies + 1)]
        if all(target.exists() for target in targets):
            continue
        try:
            image, size = load_image(path, args.max_size)
        except UNREADABLE as error:
            unreadable.append(f'{path}: {error}')
            continue
        image_u8 = np.asarray(image)
        # A seed an image, so that a resumed call paints as an uninterrupted one.
        generator = torch.Generator(args.device).manual_seed(args.seed + index)
        for target, repaint in zip(
            targets, repaint_image(repainter, image_u8, masks(image_u8), args.copies, generator), strict=True
        ):
            picture = Image.fromarray(repaint)
            whole = picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
            write_whole(target, partial(whole.save, format='PNG'))
    if not images:
        print(f'no images in {root}', file=sys.stderr)
    for line in unreadable:
        print(f'unreadable: {line}', file=sys.stderr)
    return 1 if unreadable or not images else 0


if __name__ == '__main__':
    run_command(main)
