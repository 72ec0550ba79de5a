"""Stylized images for Shape-ResNet: `timm-repaint stylize IMAGES STYLES OUT`.

OUT mirrors IMAGES: `cat/7.jpg` becomes `cat/7.jpg.stylized.jpg`, in the style of one of the pictures in STYLES. Which
one hangs on the image's name alone, so shards and a second call, which goes on where the first stopped, agree.
Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture", ICLR 2019.
"""

import hashlib
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from timm_repaint.baselines.adain import AdaIN, load_adain
from timm_repaint.claim import claim
from timm_repaint.commandline import at_least, goes_on, shard
from timm_repaint.devices import find_device
from timm_repaint.errors import run_command
from timm_repaint.files import write_whole
from timm_repaint.masks.manifest import sha256
from timm_repaint.pictures import list_pictures, read_picture
from timm_repaint.progress import progress

ENDING = '.stylized.jpg'
JPEG_QUALITY = 95
SMALLEST_PX = 16  # below, maps of an eighth are too small to reflect their borders


def parse_args(argv: list[str] | None = None) -> Namespace:
    parser = ArgumentParser(
        prog='timm-repaint stylize',
        description='Paint each image in the style of a picture, chosen by the name of the image (AdaIN).',
    )
    add = parser.add_argument
    add('images', type=Path, metavar='IMAGES', help='folder of images, with folders inside as deep as you like')
    add('styles', type=Path, metavar='STYLES', help='folder of pictures whose styles are taken')
    add('out', type=Path, metavar='OUT', help='where the stylized images go, in a tree like that of IMAGES')
    add('--vgg', default='vgg_normalised.pth', metavar='FILE', help='weights of VGG-19 (default: %(default)s)')
    add('--decoder', default='decoder.pth', metavar='FILE', help='weights of the decoder (default: %(default)s)')
    add('--size', type=at_least(SMALLEST_PX), default=224, metavar='PX', help='shorter side of both (default: 224)')
    add('--with-originals', action='store_true', help='link each image beside its stylized one, to train on both')
    add('--shard', type=shard, default=(1, 1), metavar='I/N', help='do the I-th of N parts, as in a SLURM array')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    return parser.parse_args(argv)


def style_of(name: str, styles: list[str]) -> str:
    """The style of an image: any of them, by a hash of the image's name."""
    number = int.from_bytes(hashlib.sha256(name.encode(errors='surrogateescape')).digest()[:8], 'big')
    return styles[number % len(styles)]


def read_image(path: Path, size_px: int) -> Tensor:
    """[1, 3, H, W] float32 RGB in [0, 1], the shorter side size_px."""
    scaled = v2.functional.resize(read_picture(path), [size_px], antialias=True)
    return v2.functional.to_dtype(v2.functional.pil_to_tensor(scaled), torch.float32, scale=True)[None]


@torch.inference_mode()
def stylize(args: Namespace, networks: AdaIN, names: list[str], styles: list[str]) -> tuple[int, list[str]]:
    """Stylize the images that are not there yet; returns how many were made, and what went wrong with which image."""
    made, failed = 0, []
    for name in progress(names, 'stylize'):
        target = args.out / f'{name}{ENDING}'
        target.parent.mkdir(parents=True, exist_ok=True)
        original = args.out / name
        if args.with_originals and not original.exists():
            original.unlink(missing_ok=True)  # a link to where the images were before
            original.symlink_to((args.images / name).resolve())
        if target.exists():
            continue
        style = style_of(name, styles)
        try:
            content = read_image(args.images / name, args.size)
            texture = v2.functional.center_crop(read_image(args.styles / style, args.size), [args.size])
        except Exception as error:  # Pillow's errors have no class in common
            failed.append(f'{name} in the style of {style}: {type(error).__name__}: {error}')
            continue
        painted = networks(content.to(args.device), texture.to(args.device))[0]  # [3, H, W]
        image = v2.functional.to_pil_image((painted * 255).round().byte().cpu())
        write_whole(target, partial(image.save, format='JPEG', quality=JPEG_QUALITY))
        made += 1
    return made, failed


@goes_on
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    index, count = args.shard
    names = sorted(list_pictures(args.images, 'image', outside=args.out))[index - 1 :: count]
    styles = sorted(list_pictures(args.styles, 'style'))
    networks = load_adain(args.vgg, args.decoder).to(find_device(args.device))
    weights = {name: sha256(getattr(args, name)) for name in ('vgg', 'decoder')}
    named = hashlib.sha256('\n'.join(styles).encode(errors='surrogateescape')).hexdigest()
    claim(args.out, {'kind': 'stylized', 'size': args.size, 'styles': named, **weights})
    made, failed = stylize(args, networks, names, styles)
    for problem in failed:
        print(f'unreadable: {problem}', file=sys.stderr)
    print(f'{made} images made, {len(names) - made - len(failed)} were there, {len(failed)} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    run_command(main)
