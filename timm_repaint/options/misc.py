"""Options of seeds, logs, checkpoints and evaluation."""

import argparse


def add_misc_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script for what a run writes, and ours for TensorBoard and cue conflict."""
    add = parser.add_argument_group('Output').add_argument
    add('--seed', type=int, default=42, metavar='N', help='random seed; each process adds its rank')
    add(
        '--output', type=str, default='', metavar='DIR', help='folder that holds the experiments; empty: ./output/train'
    )
    add('--experiment', type=str, default='', metavar='NAME', help='folder of this run; empty: date, model and size')
    add('--log-interval', type=int, default=50, metavar='N', help='batches between two lines of the log')
    add('--val-interval', type=int, default=1, metavar='N', help='epochs between two validations')
    add('--recovery-interval', type=int, default=0, metavar='N', help='batches between recovery checkpoints; 0: none')
    add('--checkpoint-hist', type=int, default=10, metavar='N', help='number of checkpoints kept')
    add(
        '--save-epochs',
        type=int,
        nargs='+',
        metavar='N',
        help='also keep milestone-N.pth.tar after N epochs, validated whatever --val-interval says',
    )
    add('--save-images', action='store_true', help='write the batch to a picture at every line of the log')
    add('--eval-metric', type=str, default='top1', metavar='NAME', help='column of summary.csv that picks the best')
    add('--tta', type=int, default=0, metavar='N', help='views of an image averaged in validation; 0: one')
    add('--log-wandb', action='store_true', help='log to Weights & Biases')
    add('--wandb-project', type=str, metavar='NAME', help='its project')
    add('--wandb-tags', type=str, nargs='+', default=[], metavar='TAG', help='its tags')
    add('--wandb-resume-id', type=str, default='', metavar='ID', help='its run to go on with')
    add('--log-tensorboard', action='store_true', help='write TensorBoard files into the experiment folder')
    add(
        '--cue-conflict',
        action='store_true',
        help="after the run, accuracy by shape and by texture on the 'cue-conflict' split of --dataset shapes",
    )
