"""Options of what Repaint is compared with, and of how much data there is; each works with and without `--repaint`."""

import argparse
from collections.abc import Iterator

from timm_repaint.options.augmentation import mixup_active


def add_baseline_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that timm's script lacks: ISDA, CutOut, and a share of the training images."""
    add = parser.add_argument_group('Baselines').add_argument
    add(
        '--isda',
        type=float,
        default=0.0,
        metavar='LAMBDA',
        help='implicit semantic data augmentation, if above 0: its strength at the end, to which it grows evenly; 7.5 '
        'for ImageNet. Needs hard labels: --smoothing 0',
    )
    add(
        '--cutout',
        type=int,
        default=0,
        metavar='PX',
        help='CutOut, if above 0: side of a square that is blanked at a random place in each training image',
    )
    add(
        '--train-fraction',
        type=float,
        default=1.0,
        metavar='X',
        help='share of the training images of each class; the same images for every seed',
    )


def check_baselines(args: argparse.Namespace) -> Iterator[str]:
    """A sentence for each problem of these options."""
    yield from _check_isda(args)
    if args.cutout < 0:
        yield f'--cutout is {args.cutout}, but must be 0 (off) or the side of a square in pixels'
    if args.cutout and args.no_aug:
        yield '--cutout changes the training images, --no-aug leaves them as they are; leave one of them out'
    if args.cutout and args.naflex_loader:
        yield '--cutout needs whole images, but --naflex-loader gives patch sequences; leave one of them out'
    if args.cutout and args.no_prefetcher and not args.repaint:
        yield '--cutout happens where the prefetcher normalises the images; leave out --no-prefetcher'
    if not 0 < args.train_fraction <= 1:
        yield f'--train-fraction is {args.train_fraction}, but must be above 0 and at most 1'


def _check_isda(args: argparse.Namespace) -> Iterator[str]:
    if not args.isda:
        return
    if not 0 < args.isda < float('inf'):
        yield f'--isda is {args.isda}, but must be 0 (off) or above, such as 7.5'
    reason = '--isda needs hard labels, one class an image'
    if mixup_active(args):
        yield f'{reason}, but MixUp and CutMix make them soft; leave out --mixup and --cutmix'
    if args.smoothing:
        yield f'{reason}, but --smoothing is {args.smoothing}; give --smoothing 0'
    others = {
        '--bce-loss': args.bce_loss,
        '--jsd-loss': args.jsd_loss,
        '--kd-model-name': args.kd_model_name is not None,
    }
    for flag in [flag for flag, used in others.items() if used]:
        yield f'--isda changes the cross-entropy, but {flag} is another loss; leave one of them out'
    for flag, used in {'--torchcompile': args.torchcompile, '--torchscript': args.torchscript}.items():
        if used:
            yield f'--isda looks at the features ahead of the classifier, which {flag} hides; leave {flag} out'
