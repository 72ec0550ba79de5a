"""Make masks once and keep them: `timm-repaint masks IMAGES OUT --mask fh`, then `--check`.

OUT mirrors IMAGES: `train/cat/7.jpg` has its mask in `train/cat/7.png`. A second call goes on where the first stopped.
Images in a tar, in webdataset's shards or in a Hugging Face data set have masks that are named after their bytes:

timm-repaint masks wds/ OUT --data-dir SHARDS --split 'train-{0000..0009}.tar|10000'
timm-repaint masks hfds/NAME OUT --split train
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

import torch

from timm_repaint.commandline import at_least, goes_on, num_cpus, shard
from timm_repaint.devices import find_device
from timm_repaint.errors import UsageError, one_line, run_command
from timm_repaint.masks import cache
from timm_repaint.masks.archive import PackedImages, is_packed_name, packed_parts
from timm_repaint.masks.choice import MASKS, MaskOptions, create_mask_source, idle_beside
from timm_repaint.masks.manifest import claim_folder, describe, read_manifest, sha256
from timm_repaint.option import add_options, options_of


def parse_args(argv: list[str] | None = None) -> Namespace:
    parser = ArgumentParser(
        prog='timm-repaint masks', description='Make the masks of a folder of images, or check them.'
    )
    add = parser.add_argument
    text = 'folder of images, with folders inside as deep as you like; a tar; hfds/NAME or wds/ as for --dataset'
    add('images', metavar='IMAGES', help=text)
    add('out', metavar='OUT', help='where the masks go, in a tree like that of IMAGES')
    add_options(parser, MaskOptions, groups=(MASKS,))
    packed = parser.add_argument_group('images of hfds/NAME and wds/, as for the training')
    packed.add_argument('--data-dir', metavar='DIR', help='folder of the shards, or of downloads')
    packed.add_argument('--split', metavar='NAME', help='as --train-split (default: train)')
    text = "where a sample has its image; of a folder, as of the training: the endings to read, such as '.jpg;.webp'"
    packed.add_argument('--input-key', metavar='KEY', help=text)
    add('--size', type=at_least(1), default=cache.DEFAULT_SIZE_PX, metavar='PX', help='longest shorter side of a mask')
    add('--workers', type=int, default=num_cpus(), metavar='N', help='processes (default: all CPUs: %(default)s)')
    add('--shard', type=shard, default=(1, 1), metavar='I/N', help='do the I-th of N parts, as in a SLURM array')
    text = 'images that cannot be read are named and left out, as training leaves them out; the status is 0'
    add('--skip-unreadable', action='store_true', help=text)
    text = (
        'make nothing; list masks that are missing, unreadable or of wrong size; with options, also if made otherwise'
    )
    add('--check', action='store_true', help=text)
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='where DeepLab and superpixels run')
    add('--batch-size', type=at_least(1), default=8, metavar='N', help='images a batch of DeepLab')
    decisive = [*(name for name, one in options_of(MaskOptions).items() if one.group == MASKS), 'size']
    args = parser.parse_args(argv, Namespace(**dict.fromkeys(decisive)))  # those that are not named stay None
    args.named = [name for name in decisive if getattr(args, name) is not None]
    for name in set(decisive) - set(args.named):
        setattr(args, name, parser.get_default(name))
    defaults = vars(MaskOptions(args.mask))
    for name in idle_beside(args.mask):
        if getattr(args, name) != defaults[name]:
            parser.error(f'--{name.replace("_", "-")} does nothing with --mask {args.mask}; leave it out')
    unused = [name for name in ('data_dir', 'split') if getattr(args, name) is not None]
    if unused and not is_packed_name(args.images):
        parser.error(
            f'--{unused[0].replace("_", "-")} is for hfds/ and wds/; name the folder of the images: IMAGES/train'
        )
    return args


def report(outcome: cache.Outcome, checked: bool, skip_unreadable: bool) -> int:
    """Says what was done and lists the failures; returns the exit code."""
    for name, problem in outcome.failed:
        print(one_line(f'{"bad" if checked else "unreadable"}: {name}: {problem}'), file=sys.stderr)
    done = f'{outcome.made} masks good' if checked else f'{outcome.made} masks made, {outcome.kept} were there'
    print(f'{done}, {len(outcome.failed)} {"bad" if checked else "images failed"}')
    skipped = outcome.unreadable if skip_unreadable else 0
    return 1 if len(outcome.failed) > skipped else 0


def check_options(args: Namespace) -> None:
    """Compares what the command line says of the masks with what they were made with.

    Raises:
        UsageError: if they were made otherwise.
    """
    there = read_manifest(args.out)
    made = {'mask': there.source, 'size': there.size_px}
    made |= {f'fh_{name}': value for name, value in there.parameters.items() if there.source == 'fh'}
    asked = {name: getattr(args, name) for name in args.named if (name, getattr(args, name)) != ('fh_backend', 'auto')}
    if 'mask_checkpoint' in asked:
        asked['mask_checkpoint'] = sha256(args.mask_checkpoint)
        made['mask_checkpoint'] = there.parameters.get('checkpoint_sha256')
    for name, value in asked.items():
        if made.get(name) != value:
            word = name.replace('_', '-')
            raise UsageError(
                f'{args.out} has masks of {there.source} with {word} {made.get(name)}, not {value}; leave --{word} out'
            )


@goes_on
def main() -> int:
    args = parse_args()
    index, count = args.shard
    packed = None
    if is_packed_name(args.images):
        packed = PackedImages(args.images, args.data_dir, args.split or 'train', args.input_key)
    folders = cache.Folders(args.images, args.out, args.size, packed)
    images: Sequence[Any] = packed_parts(packed.dataset) if packed else cache.list_images(folders, args.input_key)
    names = images[index - 1 :: count]
    if args.check:
        check_options(args)
        return report(cache.check_cache(folders, names, args.workers), True, args.skip_unreadable)
    source: Any = create_mask_source(MaskOptions.of(args))
    source = source.to(find_device(args.device)) if source.on_device else source
    claim_folder(args.out, describe(args.mask, source, args.size, args.mask_checkpoint))
    made = cache.make_masks(folders, names, source, args.workers, args.batch_size)
    return report(made, False, args.skip_unreadable)


if __name__ == '__main__':
    run_command(main)
