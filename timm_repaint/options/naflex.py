"""Options of training with several image sizes, or with token sequences (NaFlex)."""

import argparse

LOSS_SCALES = ('none', 'sqrt', 'linear')


def add_train_size_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that train on several image sizes in turn."""
    add = parser.add_argument_group('Several training sizes').add_argument
    add('--train-img-sizes', type=int, nargs='+', metavar='PX', help='image sizes that batches are drawn from')
    add(
        '--train-batch-sizes',
        type=int,
        nargs='+',
        metavar='N',
        help='batch size for each; unset: as --batch-size allows',
    )
    add('--train-size-probs', type=float, nargs='+', metavar='P', help='probability of each size; unset: all the same')
    add(
        '--train-size-schedule',
        type=str,
        default='constant',
        choices=['constant', 'progressive'],
        help="'constant' draws alike all through, 'progressive' moves from the first size to the last",
    )
    add(
        '--train-size-schedule-spread',
        type=float,
        default=0.65,
        metavar='X',
        help='width of the moving window, in sizes',
    )
    add('--train-size-random-mix', type=float, default=0.1, metavar='P', help='share drawn outside that window')
    add(
        '--train-batches-per-epoch',
        '--train-steps-per-epoch',
        type=int,
        metavar='N',
        help='batches in an epoch; unset: one pass over the data',
    )
    add(
        '--variable-batch-loss-scale',
        type=str,
        default='none',
        choices=list(LOSS_SCALES),
        help='how the loss is scaled by the size of its batch',
    )


def add_naflex_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script for models that read images as sequences of patches."""
    add = parser.add_argument_group('NaFlex').add_argument
    add('--naflex-loader', action='store_true', help='load images as patch sequences of varying length')
    add(
        '--naflex-train-seq-lens',
        type=int,
        nargs='+',
        default=[128, 256, 576, 784, 1024],
        metavar='N',
        help='sequence lengths to train with',
    )
    add('--naflex-max-seq-len', type=int, default=576, metavar='N', help='sequence length in validation')
    add('--naflex-patch-sizes', type=int, nargs='+', metavar='PX', help='patch sizes to draw from')
    add('--naflex-patch-size-probs', type=float, nargs='+', metavar='P', help='probability of each patch size')
    add(
        '--naflex-loss-scale',
        type=str,
        default='linear',
        choices=list(LOSS_SCALES),
        help='how the loss is scaled by the size of its batch',
    )
    add('--naflex-patchify-channels-first', action='store_true', help='lay out a patch by channel, then by pixel')
