"""Repaint a folder of images with a trained run: `timm-repaint paint RUN IMAGES OUT --copies 3`.

OUT mirrors IMAGES: `cat/7.jpg` becomes `cat/7-1.png`, `cat/7-2.png`, … of the image's own size. Labels stay true:
shapes stay where they are. A second call goes on where the first one stopped; one with another run or seed is refused.
"""

import argparse
import io
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

from timm_repaint.claim import claim
from timm_repaint.commandline import goes_on
from timm_repaint.data.samples import to_pm1, to_u8
from timm_repaint.errors import UsageError, one_line, run_command
from timm_repaint.files import remove_parts, write_whole
from timm_repaint.masks.choice import MaskOptions, create_mask_source
from timm_repaint.masks.label_png import png_info, read_note
from timm_repaint.masks.manifest import sha256
from timm_repaint.masks.origin import Origin, digest, find_origin, read_file
from timm_repaint.options.run_file import read_args
from timm_repaint.painters import AnyRepainter
from timm_repaint.pictures import UNREADABLE, convert_picture, find_pictures
from timm_repaint.progress import progress
from timm_repaint.repainter import MIN_SIZE_PX
from timm_repaint.saved import load_repainter
from timm_repaint.version import __version__


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


def target_stems(names: list[str]) -> list[str]:
    """Names without an ending; images that differ in nothing but their ending keep it."""
    stems = [os.path.splitext(name)[0] for name in names]
    count = Counter(stems)
    return [name if count[stem] > 1 else stem for name, stem in zip(names, stems, strict=True)]


def manifest_of(args: argparse.Namespace, checkpoint: Path, masks: Any) -> dict[str, Any]:
    """What decides the repaints of an image."""
    return {
        'kind': 'repaints',
        'checkpoint_sha256': sha256(str(checkpoint)),
        'masks': dict(getattr(masks, 'settings', {})),
        'seed': args.seed,
        'max_size': args.max_size,
        'timm_repaint': __version__,
    }


def are_painted(targets: list[Path], image: Path) -> bool:
    """Whether the repaints of an image are there, and it has not been replaced since.

    Raises:
        UsageError: if a file of that name is there that this command did not write.
    """
    notes = []
    for target in targets:
        try:
            notes.append(read_note(target))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UsageError(f'cannot read {target}: {error.strerror}') from error
    for target, note in zip(targets, notes, strict=True):
        if note is None:
            raise UsageError(f'{target} was there before and is no repaint: it is not overwritten; give another OUT')
    return all(find_origin(str(target), str(image)) is Origin.SAME for target in targets)


def load_image(content: bytes, max_size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The image in RGB at the size to paint at, and its own size (width, height)."""
    with Image.open(io.BytesIO(content)) as file:
        image = convert_picture(ImageOps.exif_transpose(file))
    size = image.size
    scale = min(1.0, max_size / max(size))
    width, height = (max(MIN_SIZE_PX, round(side * scale)) for side in size)
    working = (width, height)
    return (image if working == size else image.resize(working, Image.Resampling.BICUBIC)), size


def seed_of(seed: int, name: str) -> int:
    """The seed of an image's repaints, whatever other images there are."""
    return int(digest(f'{seed} {name}'.encode(errors='surrogateescape')), 16) % 2**63


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


@goes_on
def main(argv: list[str] | None = None) -> int:
    """Repaint all images; returns 1 if some could not be read (they are named), else 0."""
    args = parse_args(argv)
    checkpoint = checkpoint_path(args.run)
    repainter = load_repainter(str(checkpoint)).to(args.device).eval()
    masks: Any = create_mask_source(MaskOptions.of(run_options(checkpoint)))
    if masks.on_device:
        masks.to(args.device)
    root, out = Path(args.images), Path(args.out)
    names = find_pictures(root)
    if not names:
        print(f'no images in {root}', file=sys.stderr)
        return 1
    claim(out, manifest_of(args, checkpoint, masks))
    remove_parts(out)
    unreadable = []
    for name, stem in zip(progress(names, 'repaint'), target_stems(names), strict=True):
        path = root / name
        targets = [out / f'{stem}-{copy}.png' for copy in range(1, args.copies + 1)]
        try:
            if are_painted(targets, path):
                continue
            content = read_file(str(path))
            image, size = load_image(content, args.max_size)
        except UsageError:
            raise
        except UNREADABLE as error:
            unreadable.append(f'{path}: {error}')
            continue
        image_u8 = np.asarray(image)
        # A seed an image, so that a call that goes on, or finds more images, paints as one that does all.
        generator = torch.Generator(args.device).manual_seed(seed_of(args.seed, name))
        for target, repaint in zip(
            targets, repaint_image(repainter, image_u8, masks(image_u8), args.copies, generator), strict=True
        ):
            picture = Image.fromarray(repaint)
            whole = picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
            write_whole(target, partial(whole.save, format='PNG', pnginfo=png_info(digest(content))))
    for line in unreadable:
        print(f'unreadable: {one_line(line)}', file=sys.stderr)
    return 1 if unreadable else 0


if __name__ == '__main__':
    run_command(main)
