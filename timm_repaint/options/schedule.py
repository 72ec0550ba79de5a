"""Options of the learning rate, its schedule and the number of epochs."""

import argparse


def add_learning_rate_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that set the learning rate and bend its curve."""
    add = parser.add_argument_group('Learning rate').add_argument
    add('--lr', type=float, metavar='LR', help='learning rate; unset: from --lr-base and the batch size')
    add('--lr-base', type=float, default=0.1, metavar='LR', help='learning rate at a batch of --lr-base-size')
    add('--lr-base-size', type=int, default=256, metavar='N', help='batch, over all processes, that --lr-base is for')
    add(
        '--lr-base-scale',
        type=str,
        default='',
        metavar='KIND',
        help="how --lr-base grows with the batch: 'linear' or 'sqrt'; empty: as suits the optimizer",
    )
    add('--sched', type=str, default='cosine', metavar='NAME', help='any timm learning-rate schedule')
    add('--sched-on-updates', action='store_true', help='move the schedule on every update, not every epoch')
    add('--warmup-lr', type=float, default=1e-5, metavar='LR', help='where warm-up starts')
    add('--min-lr', type=float, default=0, metavar='LR', help='where cyclic schedules end')
    add('--lr-noise', type=float, nargs='+', metavar='X', help='share of the epochs where noise starts (and ends)')
    add('--lr-noise-pct', type=float, default=0.67, metavar='X', help='largest noise, as a share of the learning rate')
    add('--lr-noise-std', type=float, default=1.0, metavar='X', help='standard deviation of the noise')
    add('--lr-cycle-mul', type=float, default=1.0, metavar='X', help='factor on the length of each next cycle')
    add('--lr-cycle-decay', type=float, default=0.5, metavar='X', help='factor on the top of each next cycle')
    add('--lr-cycle-limit', type=int, default=1, metavar='N', help='number of cycles')
    add('--lr-k-decay', type=float, default=1.0, metavar='K', help='exponent on the time in cosine and poly schedules')


def add_epoch_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that count epochs and place the schedule's steps in them."""
    add = parser.add_argument_group('Epochs').add_argument
    add('--epochs', type=int, default=300, metavar='N', help='epochs to train, before any cool-down')
    add('--epoch-repeats', type=float, default=0.0, metavar='X', help='times the data are seen in one epoch, if not 0')
    add('--start-epoch', type=int, metavar='N', help='number of the first epoch, whatever --resume says')
    add('--stop-epoch', type=int, metavar='N', help='stop after N epochs; the schedule stays that of all --epochs')
    add('--warmup-epochs', type=int, default=5, metavar='N', help='epochs of rising learning rate')
    add('--warmup-prefix', action='store_true', help='put warm-up ahead of the schedule instead of over its start')
    add('--cooldown-epochs', type=int, default=0, metavar='N', help='epochs at the lowest learning rate, at the end')
    add(
        '--decay-milestones',
        type=int,
        nargs='+',
        default=[90, 180, 270],
        metavar='N',
        help='epochs at which the multistep schedule falls',
    )
    add('--decay-epochs', type=float, default=90, metavar='N', help='epochs between two falls of the step schedule')
    add('--decay-rate', '--dr', type=float, default=0.1, metavar='X', help='factor on the learning rate at each fall')
    add('--patience-epochs', type=int, default=10, metavar='N', help='epochs that the plateau schedule waits')
