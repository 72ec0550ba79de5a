"""Make masks once and keep them: `timm-repaint masks IMAGES OUT --mask fh`, then `--check`.

OUT mirrors IMAGES: `train/cat/7.jpg` has its mask in `train/cat/7.png`. A second call goes on where the first stopped.
"""

import argparse
import os
import signal
import sys
from typing import Any

import torch

from timm_repaint.errors import UsageError, run_command
from timm_repaint.masks.cache import DEFAULT_SIZE_PX, Folders, Outcome, check_cache, list_images, make_masks
from timm_repaint.masks.choice import MASKS, MaskOptions, MaskSource, create_mask_source
from timm_repaint.masks.manifest import claim_folder, describe
from timm_repaint.option import add_options

INTERRUPTED = 130  # the shell's code for Ctrl-C


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='timm-repaint masks', description='Make the masks of a folder of images, or check them.'
    )
    add = parser.add_argument
    add('images', metavar='IMAGES', help='folder of images, with folders inside as deep as you like')
    add('out', metavar='OUT', help='where the masks go, in a tree like that of IMAGES')
    add_options(parser, MaskOptions, groups=(MASKS,))
    add('--size', type=_at_least_one, default=DEFAULT_SIZE_PX, metavar='PX', help='longest shorter side of a mask')
    add('--workers', type=int, default=_num_cpus(), metavar='N', help='processes (default: all CPUs: %(default)s)')
    add('--shard', type=_shard, default=(1, 1), metavar='I/N', help='do the I-th of N parts, as in a SLURM array')
    add('--check', action='store_true', help='make nothing; list masks that are missing, unreadable or of wrong size')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='where DeepLab runs')
    add('--batch-size', type=_at_least_one, default=8, metavar='N', help='images a batch of DeepLab')
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is below 1')
    return value


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = map(int, text.split('/'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not I/N, such as 3/16') from None
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(
            f'shard {index} of {count} does not exist; shards are 1/{count} to {count}/{count}'
        )
    return index, count


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def build_source(args: argparse.Namespace) -> MaskSource:
    """The mask source of the options, on the device if it is a network."""
    try:
        source: Any = create_mask_source(MaskOptions.of(args))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return source.to(args.device) if source.on_device else source


def report(outcome: Outcome, checked: bool) -> int:
    """Says what was done and lists the failures; returns the exit code."""
    for name, problem in outcome.failed:
        print(f'{"bad" if checked else "unreadable"}: {name}: {problem}', file=sys.stderr)
    done = f'{outcome.made} masks good' if checked else f'{outcome.made} masks made, {outcome.kept} were there'
    print(f'{done}, {len(outcome.failed)} {"bad" if checked else "images failed"}')
    return 1 if outcome.failed else 0


def main() -> int:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SLURM's way to say that time is over
    folders = Folders(args.images, args.out, args.size)
    index, count = args.shard
    try:
        names = list_images(folders)[index - 1 :: count]
        if args.check:
            return report(check_cache(folders, names, args.workers), checked=True)
        source = build_source(args)
        claim_folder(args.out, describe(args.mask, source, args.size, args.mask_checkpoint))
        return report(make_masks(folders, names, source, args.workers, args.batch_size), checked=False)
    except KeyboardInterrupt:
        print('\ninterrupted; the same command goes on from here', file=sys.stderr)
        return INTERRUPTED


if __name__ == '__main__':
    run_command(main)
