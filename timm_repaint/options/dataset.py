"""Options that choose the images and say how they are read."""

import argparse


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that name the data set, its splits and its columns."""
    add = parser.add_argument_group('Data set').add_argument
    add('data', nargs='?', help='folder of the data set; the same as --data-dir')
    add('--data-dir', metavar='DIR', help='folder of the data set')
    add(
        '--dataset',
        default='',
        metavar='NAME',
        help='kind of data set, as in torch/cifar10 or hfds/<name>; empty: folders or an archive with a folder a '
        'class; shapes: the built-in set',
    )
    add('--train-split', default='train', metavar='NAME', help='split to train on')
    add('--val-split', default='validation', metavar='NAME', help='split to validate on')
    add('--train-num-samples', type=int, metavar='N', help='length of the train split, for streams that do not know it')
    add('--val-num-samples', type=int, metavar='N', help='length of the validation split, for the same streams')
    add('--dataset-download', action='store_true', help='let torch/ and tfds/ data sets download themselves')
    add('--class-map', type=str, default='', metavar='FILE', help='file that maps class names to indices')
    add('--input-img-mode', type=str, metavar='MODE', help="Pillow mode that images are converted to; unset: 'RGB'")
    add('--input-key', type=str, metavar='KEY', help='column or key of the image in a sample')
    add('--target-key', type=str, metavar='KEY', help='column or key of the label in a sample')
    add(
        '--dataset-trust-remote-code',
        action='store_true',
        help='allow a Hugging Face data set to run the code it brings along',
    )


def add_loader_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that steer the data loaders."""
    add = parser.add_argument_group('Data loading').add_argument
    add('-j', '--workers', type=int, default=4, metavar='N', help='loader processes for each training process')
    add('--pin-mem', action='store_true', help='read batches into page-locked memory, for faster copies to the GPU')
    add('--no-prefetcher', action='store_true', help='normalise on the CPU, and copy batches without a side stream')
    add('--use-multi-epochs-loader', action='store_true', help='keep the loader processes alive between epochs')
    add(
        '--worker-seeding',
        type=str,
        default='all',
        metavar='MODE',
        help="which random generators each worker seeds: 'all', or 'part' (all but NumPy's)",
    )
