"""Options of augmentation, losses, regularisation and the averaged copy of the weights."""

import argparse


def add_augmentation_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that change single training images."""
    add = parser.add_argument_group('Augmentation').add_argument
    add('--no-aug', action='store_true', help='train on the images as validation sees them')
    add('--train-crop-mode', type=str, metavar='MODE', help="how training images are cropped: 'rrc', 'rkrc' or 'rkrr'")
    add(
        '--scale',
        type=float,
        nargs='+',
        default=[0.08, 1.0],
        metavar='X',
        help="lowest and highest share of a crop's area",
    )
    add('--ratio', type=float, nargs='+', default=[3 / 4, 4 / 3], metavar='X', help='lowest and highest width / height')
    add('--train-interpolation', type=str, default='random', metavar='NAME', help='how training images are resized')
    add('--hflip', type=float, default=0.5, metavar='P', help='probability of a left-right flip')
    add('--vflip', type=float, default=0.0, metavar='P', help='probability of an upside-down flip')
    add('--color-jitter', type=float, default=0.4, metavar='X', help='strength of colour jitter')
    add('--color-jitter-prob', type=float, metavar='P', help='probability of colour jitter; unset: always')
    add('--grayscale-prob', type=float, metavar='P', help='probability of taking the colour away')
    add('--gaussian-blur-prob', type=float, metavar='P', help='probability of a blur')
    add('--aa', type=str, metavar='POLICY', help='AutoAugment policy, as in v0, rand-m9-mstd0.5 or augmix-m3-w3')
    add(
        '--aug-repeats',
        type=float,
        default=0,
        metavar='N',
        help='views of an image in one epoch, spread over processes',
    )
    add('--aug-splits', type=int, default=0, metavar='N', help='views of an image in one batch; 0, or 2 and more')
    add('--reprob', type=float, default=0.0, metavar='P', help='probability of erasing a random rectangle')
    add('--remode', type=str, default='pixel', metavar='MODE', help='what is painted there: const, rand or pixel')
    add('--recount', type=int, default=1, metavar='N', help='number of rectangles')
    add('--resplit', action='store_true', help='keep the first of the --aug-splits views free of erasing')


def add_mixing_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that mix images of a batch with each other."""
    add = parser.add_argument_group('MixUp and CutMix').add_argument
    add('--mixup', type=float, default=0.0, metavar='ALPHA', help='MixUp, if above 0')
    add('--cutmix', type=float, default=0.0, metavar='ALPHA', help='CutMix, if above 0')
    add('--cutmix-minmax', type=float, nargs='+', metavar='X', help='lowest and highest share of the cut, for --cutmix')
    add('--mixup-prob', type=float, default=1.0, metavar='P', help='probability that anything is mixed')
    add('--mixup-switch-prob', type=float, default=0.5, metavar='P', help='probability of CutMix where both are on')
    add('--mixup-mode', type=str, default='batch', metavar='MODE', help='one draw for each batch, pair or elem')
    add('--mixup-off-epoch', type=int, default=0, metavar='N', help='stop mixing at this epoch; 0: never')


def add_loss_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that choose the classifier's loss."""
    add = parser.add_argument_group('Loss').add_argument
    add('--smoothing', type=float, default=0.1, metavar='X', help='label smoothing')
    add('--jsd-loss', action='store_true', help='cross-entropy and Jensen-Shannon consistency of the --aug-splits')
    add('--bce-loss', action='store_true', help='binary cross-entropy')
    add('--bce-sum', action='store_true', help='add it up over the classes instead of averaging')
    add('--bce-target-thresh', type=float, metavar='X', help='targets above this become 1, others 0')
    add('--bce-pos-weight', type=float, metavar='X', help='weight of the positive targets')


def add_regularisation_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script for dropout, batch norm and the averaged weights."""
    add = parser.add_argument_group('Dropout, batch norm and averaged weights').add_argument
    add('--drop', type=float, default=0.0, metavar='P', help='dropout before the last layer')
    add('--drop-connect', type=float, metavar='P', help='old name of --drop-path')
    add('--drop-path', type=float, metavar='P', help='stochastic depth')
    add('--drop-block', type=float, metavar='P', help='DropBlock')
    add('--bn-momentum', type=float, metavar='X', help="batch norm's momentum; unset: the model's")
    add('--bn-eps', type=float, metavar='X', help="batch norm's epsilon; unset: the model's")
    add('--sync-bn', action='store_true', help='batch statistics over all processes')
    add(
        '--dist-bn',
        type=str,
        default='reduce',
        metavar='MODE',
        help="running statistics after an epoch: 'reduce' averages over processes, 'broadcast' takes the first one's",
    )
    add('--split-bn', action='store_true', help='batch norms of their own for the later --aug-splits')
    add('--model-ema', action='store_true', help='keep a moving average of the weights, and validate it too')
    add('--model-ema-force-cpu', action='store_true', help='keep it in main memory, without validation')
    add('--model-ema-decay', type=float, default=0.9998, metavar='X', help='share of the average kept at an update')
    add('--model-ema-warmup', action='store_true', help='let that share rise from a low one')


def mixup_active(args: argparse.Namespace) -> bool:
    """Whether MixUp or CutMix make the targets soft."""
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None
