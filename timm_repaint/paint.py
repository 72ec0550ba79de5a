"""Repaint images: `timm-repaint paint photos repaints --painter pretrained`, or with a trained run: `--run RUN`.

IMAGES are folders, files or patterns. OUT mirrors them: `cat/7.jpg` becomes `cat/7-1.png`, `cat/7-2.png`, … of the
image's own size. Labels stay true: shapes stay where they are. A second call goes on where the first one stopped; one
with another run, painter or seed is refused. `timm-repaint paint RUN IMAGES OUT` is the same as with `--run`.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from timm_repaint.claim import claim
from timm_repaint.commandline import at_least, goes_on, num_cpus
from timm_repaint.devices import find_device
from timm_repaint.errors import UsageError, one_line, run_command
from timm_repaint.files import remove_parts
from timm_repaint.masks.choice import BUILDERS, NETWORKS, MaskOptions, create_mask_source
from timm_repaint.masks.folder import CachedMasks, FolderMasks
from timm_repaint.masks.manifest import MANIFEST_NAME, describe, sha256
from timm_repaint.masks.workers import in_workers
from timm_repaint.options.run_file import read_args
from timm_repaint.painters import PAINTERS, RANDCONV, AnyRepainter, SegmentPainter
from timm_repaint.painting.before_after import check_places, show
from timm_repaint.painting.brush import FORMATS, Brush, Canvas, Manner
from timm_repaint.painting.companions import copy_companions, find_companions
from timm_repaint.painting.photographs import Photographs, expand, find_photographs
from timm_repaint.pictures import is_inside
from timm_repaint.progress import progress
from timm_repaint.repainter import MIN_SIZE_PX
from timm_repaint.saved import PRETRAINED, PRETRAINED_FILE, load_repainter
from timm_repaint.version import __version__


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog='timm-repaint paint',
        usage='%(prog)s [-h] [--run RUN | --painter NAME] [options] IMAGES [IMAGES ...] OUT',
        description='Repaint images by a trained run, by the generator that comes along, or without a network.',
    )
    add = parser.add_argument
    add('paths', nargs='+', metavar='IMAGES OUT', help='folders, files or patterns of images; where the repaints go')
    who = parser.add_mutually_exclusive_group()
    who.add_argument('--run', metavar='RUN', help='folder of a train.py --repaint run, or a checkpoint in it')
    text = 'pretrained: the small generator that comes along; the others: without a network, as --repaint-generator'
    who.add_argument('--painter', choices=(PRETRAINED, *PAINTERS), help=text)
    add('--copies', type=at_least(1), default=3, metavar='N', help='repaints of each image (default: 3)')
    add('--strength', type=float, default=1.0, metavar='X', help='0: the original, 1: as drawn (default: 1)')
    add('--format', choices=tuple(FORMATS), default='png', help='of the repaints (default: png)')
    add('--mask', choices=tuple(BUILDERS), help="source of the masks (default: the run's, or fh)")
    text = "deeplabv2, deeplabv3: file of the weights (default: the run's)"
    add('--mask-checkpoint', default='', metavar='FILE', help=text)
    add('--mask-dir', metavar='DIR', help='label maps in a tree like that of IMAGES, or masks of timm-repaint masks')
    text = 'larger images are painted at this length of their longer side and enlarged again (default: 512)'
    add('--max-size', type=at_least(MIN_SIZE_PX), default=512, metavar='PX', help=text)
    add('--seed', type=int, default=0, help='of the random latents (default: 0)')
    add('--sheet', metavar='FILE', help='a picture of some images beside their repaints, .jpg or .png')
    add('--html', metavar='FILE', help='a page of up to 100 images beside their repaints')
    add('--workers', type=int, default=num_cpus(), metavar='N', help='processes (default: all CPUs: %(default)s)')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='where to compute')
    return parser


def parse_args(argv: list[str] | None = None) -> tuple[Namespace, Photographs]:
    parser = build_parser()
    args = parser.parse_args(argv)
    *images, args.out = args.paths
    if args.run is None and args.painter is None:
        if len(args.paths) != 3:
            parser.error(f'give --run RUN, or --painter {PRETRAINED} for the generator that comes along')
        args.run, *images = images
    if not images:
        parser.error('give IMAGES and OUT')
    if not 0 <= args.strength <= 1:
        parser.error(f'--strength is {args.strength}; it has to be from 0 (the original) to 1 (as drawn)')
    if args.mask and args.mask_dir:
        parser.error(f'--mask {args.mask} makes masks, --mask-dir {args.mask_dir} has them; leave one of them out')
    if args.mask and args.painter == RANDCONV:
        parser.error(f'--painter {RANDCONV} needs no masks; leave --mask {args.mask} out')
    if args.mask_checkpoint and (args.mask_dir or args.painter == RANDCONV):
        reason = f'--mask-dir {args.mask_dir} has masks' if args.mask_dir else f'--painter {RANDCONV} needs no masks'
        parser.error(f'{reason}; leave --mask-checkpoint {args.mask_checkpoint} out')
    items = {word: expand(word) for word in images}
    for word, matches in items.items():
        if not matches:
            parser.error(f'{word} is no folder, no image and no pattern of any')
    found = find_photographs([path for matches in items.values() for path in matches], args.mask_dir)
    for folder in found.folders:
        if args.sheet and is_inside(args.sheet, folder):
            parser.error(f'--sheet {args.sheet} lies in {folder} and would be repainted; give another place')
        if is_inside(args.out, folder):
            parser.error(f'{args.out} lies in {folder}: its repaints would be repainted; give a folder outside')
    return args, found


def checkpoint_path(run: str) -> Path:
    """The checkpoint of a run folder, or the file itself.

    Raises:
        UsageError: if there is none.
    """
    path = Path(run) / 'last.pth.tar' if os.path.isdir(run) else Path(run)
    if not path.is_file():
        raise UsageError(
            f'{path} does not exist: RUN is the output folder of a train.py --repaint run; without one give '
            f'--painter {PRETRAINED}'
        )
    return path


def mask_options(args: Namespace) -> MaskOptions:
    """How masks are made: as the command line says, or as the run's masks were, with the command line's weights.

    Raises:
        UsageError: if the run's options are not there, or there are weights for masks that need none.
    """
    options = MaskOptions(mask=args.mask or 'fh')
    if args.run and not args.mask:
        path = checkpoint_path(args.run)
        advice = f'it says how the masks of {path.name} were made; copy it there, or give --mask'
        options = MaskOptions.of(Namespace(**read_args(path.parent, advice)))
    if not args.mask_checkpoint:
        return options
    if options.mask not in NETWORKS:
        raise UsageError(
            f'--mask-checkpoint {args.mask_checkpoint} is for {" and ".join(NETWORKS)}, the masks are {options.mask}; '
            'leave it out, or give --mask'
        )
    return replace(options, mask_checkpoint=args.mask_checkpoint)


def choose_masks(args: Namespace, root: Path, num_labels: int | None) -> Any:
    """Where the label maps of images come from: stored, of the named source, or of the run's.

    Raises:
        UsageError: if they are of other classes than the painter's, or the run's options are not there.
    """
    masks: Any
    if args.mask_dir:
        cached = os.path.isfile(os.path.join(args.mask_dir, MANIFEST_NAME))
        masks = CachedMasks(args.mask_dir, root) if cached else FolderMasks(args.mask_dir, root, num_labels)
    elif args.painter == RANDCONV:
        return None
    else:
        masks = create_mask_source(mask_options(args))
    if args.painter not in PAINTERS and masks.num_labels != num_labels:
        ours, theirs = ('segments' if n is None else f'{n} classes' for n in (num_labels, masks.num_labels))
        raise UsageError(f'the generator paints maps of {ours}, the masks have {theirs}; give another --mask')
    return masks


def create_brush(args: Namespace, root: Path, labelled: bool) -> tuple[Brush, dict[str, Any]]:
    """What paints, and what decides the repaints of an image; `labelled`: there are labels of pixels as stored."""
    as_stored = labelled or bool(args.mask_dir)
    who: dict[str, Any] = {}
    repainter: AnyRepainter
    if args.painter in PAINTERS:
        masks = choose_masks(args, root, None)
        repainter = SegmentPainter(args.painter, getattr(masks, 'num_labels', None))
        who['painter'] = args.painter
    else:
        path = PRETRAINED_FILE if args.painter else checkpoint_path(args.run)
        repainter = load_repainter(str(path))
        masks = choose_masks(args, root, repainter.config['num_labels'])
        who['checkpoint_sha256'] = sha256(str(path))
    if getattr(masks, 'on_device', False):
        masks.to(find_device(args.device))
    manner = Manner(args.copies, args.strength, args.max_size, args.seed, args.format, as_stored)
    brush = Brush(root, Path(args.out), manner, repainter.to(find_device(args.device)).eval(), masks, args.device)
    settings: dict[str, Any] = {'mask_dir': os.path.abspath(args.mask_dir)} if args.mask_dir else {}
    if masks is not None and not args.mask_dir:
        options = mask_options(args)
        weights = options.mask_checkpoint if options.mask in NETWORKS else ''  # a run's may name idle ones
        made = describe(options.mask, masks, checkpoint=weights)
        settings = {'mask_source': made.source, **made.parameters}
    manifest = {
        'kind': 'repaints',
        **who,
        'masks': settings,
        **{name: getattr(args, name) for name in ('seed', 'strength', 'format', 'max_size')},
        'as_stored': as_stored,
        'timm_repaint': __version__,
    }
    return brush, manifest


def paint_all(brush: Brush, images: Photographs, workers: int) -> list[Canvas]:
    """Repaint images in processes; with a GPU they read and segment, and this one paints.

    Raises:
        UsageError: at a file that is not ours, or that cannot be written.
    """
    items = list(zip(images.names, images.stems, strict=True))
    in_processes = partial(in_workers, items=items, workers=min(workers, len(items)))
    if brush.device == 'cpu':
        done = in_processes(brush.paint)
    else:
        done = map(brush.finish, in_processes(brush.prepare))
    return list(progress(done, 'repaint', len(items)))


@goes_on
def main(argv: list[str] | None = None) -> int:
    """Repaint all images; returns 1 if some could not be read (they are named), else 0."""
    args, images = parse_args(argv)
    check_places(args.sheet, args.html)
    companions = find_companions(images)
    brush, manifest = create_brush(args, images.root, any(companions))
    if not images.names:
        raise UsageError(f'no images in {images.root}; give a folder of them, or files')
    claim(brush.out, manifest)
    remove_parts(brush.out)
    canvases = paint_all(brush, images, args.workers)
    stems = {canvas.name: canvas.stem for canvas in canvases if not canvas.unreadable}
    copy_companions(companions, brush, stems)
    for place in show(args.sheet, args.html, brush, stems):
        print(place)
    unreadable = [canvas.unreadable for canvas in canvases if canvas.unreadable]
    for line in unreadable:
        print(f'unreadable: {one_line(line)}', file=sys.stderr)
    also = f', {len(unreadable)} could not be read' if unreadable else ''
    print(f'{args.copies * len(stems)} repaints of {len(stems)} images are in {args.out}{also}')
    return 1 if unreadable else 0


if __name__ == '__main__':
    run_command(main)
