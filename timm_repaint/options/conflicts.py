"""What --repaint refuses, with the reason and the way out; and the epochs of its phases.

`check_options` runs before any work. Each check looks at the options and yields a sentence for every problem.
"""

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from timm.optim import get_optimizer_info

from timm_repaint.config import generator_problems
from timm_repaint.errors import UsageError
from timm_repaint.option import options_of, problems
from timm_repaint.options.idle import mixup_active, warn_of_idle
from timm_repaint.options.option_table import check_numbers, check_words
from timm_repaint.options.repaint_options import CONFIGS, repaint_fields
from timm_repaint.saved import PRETRAINED

MIN_IMAGE_PX = 32  # the generator starts from a map of 1/32 of the image's side
MIXUP_MODES = ('batch', 'pair', 'elem')
METRICS = {'classification': ('top1', 'top5', 'loss'), 'detection': ('map', 'ap50', 'loss')}  # by task


def check_options(parser: ArgumentParser, args: Namespace) -> None:
    """Stops at the first conflict between options, before any work.

    Without `--repaint` timm's options are left alone. Options that were set and do nothing are named in a warning.

    Raises:
        SystemExit: with status 2, by `parser.error`, which gives the reason and the way out.
    """
    for check in GENERAL_CHECKS + (REPAINT_CHECKS if args.repaint else ()):
        for problem in check(args):
            parser.error(problem)
    warn_of_idle(parser, args)


def parse_schedule(text: str) -> tuple[int, int]:
    """Reads '2:1' as (2, 1): updates of discriminator and task, updates of encoder and generator.

    Raises:
        UsageError: if the text is not two positive integers with a colon between.
    """
    match = re.fullmatch(r'\s*([0-9]+)\s*:\s*([0-9]+)\s*', text)
    counts = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(counts) < 1:
        raise UsageError(
            f"the schedule is {text!r}, but must be two positive integers such as '2:1', in YAML with quotes"
        )
    return counts


def resolve_repaint_epochs(args: Namespace) -> int:
    """Number of epochs with repaints: `--repaint-epochs`, or three quarters of `--epochs`.

    The three quarters are rounded, a half in favour of fine-tuning, and at least 1: 150 of 200, 7 of 10, 1 of 2.
    """
    if args.repaint_epochs is not None:
        return args.repaint_epochs
    return max(1, (3 * args.epochs + 1) // 4)


def resolve_stop_epoch(stop_epoch: int | None, num_epochs: int) -> int:
    """Number of epochs after which the run stops: `--stop-epoch`, from 1 on, or all of them.

    Raises:
        UsageError: if the option is out of range.
    """
    if stop_epoch is None:
        return num_epochs
    if not 1 <= stop_epoch <= num_epochs:
        raise UsageError(
            f'--stop-epoch is {stop_epoch}, but must be from 1 to {num_epochs}, the length of the schedule'
        )
    return stop_epoch


def _check_evaluation(args: Namespace) -> Iterator[str]:
    metrics = METRICS[getattr(args, 'task', 'classification')]
    if args.eval_metric not in metrics:
        yield f'--eval-metric is {args.eval_metric!r}; choose one of {", ".join(metrics)}'
    if args.cue_conflict and args.dataset != 'shapes':
        yield f'--cue-conflict needs --dataset shapes, whose texture labels it uses; got --dataset {args.dataset!r}'


def _check_baselines(args: Namespace) -> Iterator[str]:
    """A sentence for each problem of these options."""
    yield from _check_isda(args)
    if args.cutout and args.no_aug:
        yield '--cutout changes the training images, --no-aug leaves them as they are; leave one of them out'
    if args.cutout and args.naflex_loader:
        yield '--cutout needs whole images, but --naflex-loader gives patch sequences; leave one of them out'
    if args.cutout and args.no_prefetcher and not args.repaint:
        yield '--cutout happens where the prefetcher normalises the images; leave out --no-prefetcher'


def _check_isda(args: Namespace) -> Iterator[str]:
    if not args.isda:
        return
    reason = '--isda needs hard labels, one class an image'
    if mixup_active(args):
        yield f'{reason}, but MixUp and CutMix make them soft; leave out --mixup and --cutmix'
    if args.smoothing:
        yield f'{reason}, but --smoothing is {args.smoothing}; give --smoothing 0'
    others = {'--bce-loss': args.bce_loss, '--jsd-loss': args.jsd_loss, '--kd-model-name': args.kd_model_name}
    for flag in [flag for flag, used in others.items() if used]:
        yield f'--isda changes the cross-entropy, but {flag} is another loss; leave one of them out'
    for flag, used in {'--torchcompile': args.torchcompile, '--torchscript': args.torchscript}.items():
        if used:
            yield f'--isda looks at the features ahead of the classifier, which {flag} hides; leave {flag} out'


def _check_limits(args: Namespace) -> Iterator[str]:
    for config_class, prefix in CONFIGS:
        shown = [name for name, one in options_of(config_class).items() if one.group and name != 'schedule']
        values = {name: getattr(args, f'{prefix}{name}') for name in shown}
        for name, problem in problems(config_class, values):
            yield '--' + f'{prefix}{name}'.replace('_', '-') + f' {problem}'


def _check_phases(args: Namespace) -> Iterator[str]:
    if args.repaint_epochs is not None and not 1 <= args.repaint_epochs <= args.epochs:
        yield f'--repaint-epochs is {args.repaint_epochs}, but must be from 1 to --epochs {args.epochs}'
    try:
        parse_schedule(args.repaint_schedule)
    except ValueError as error:
        yield f'--repaint-schedule: {error}'


def _check_generator(args: Namespace) -> Iterator[str]:
    for problem in generator_problems(repaint_fields(args)):
        yield f'--repaint-{problem}'
    if args.repaint_checkpoint not in ('', PRETRAINED) and not os.path.isfile(args.repaint_checkpoint):
        yield f"--repaint-checkpoint: there is no file {args.repaint_checkpoint}; ours is '{PRETRAINED}'"


def _check_masks(args: Namespace) -> Iterator[str]:
    if args.mask == 'outlines' and args.dataset != 'shapes':
        yield f'--mask outlines is for --dataset shapes, which knows them; got --dataset {args.dataset!r}'
    if args.mask_classes is not None and args.mask != 'folder':
        yield f'--mask-classes says what is in --mask folder, --mask is {args.mask}; leave it out'
    if args.mask == 'outlines' and args.mask_dir:
        yield '--mask outlines reads no files; leave out --mask-dir'


def _check_loading(args: Namespace) -> Iterator[str]:
    reasons = {
        'naflex_loader': 'needs whole images, but --naflex-loader gives patch sequences; leave one of them out',
        'aug_splits': 'gives each image views of its own; leave out --aug-splits',
        'jsd_loss': 'does not take --aug-splits, whose views --jsd-loss compares; leave it out',
        'resplit': 'fills the first half of a batch, which --resplit keeps from erasing; leave it out',
        'split_bn': 'does not take --aug-splits, which --split-bn is for; leave it out',
    }
    yield from (f'--repaint {reason}' for name, reason in reasons.items() if getattr(args, name))
    if args.variable_batch_loss_scale != 'none':
        yield '--variable-batch-loss-scale weighs plain batches only; with --repaint leave it out'


def _check_model(args: Namespace) -> Iterator[str]:
    if args.torchscript:
        yield '--torchscript has no place for the gradient to the generator; with --repaint use --torchcompile'
    try:
        second_order = get_optimizer_info(args.opt.lower().split('_')[-1]).second_order
    except ValueError:  # not timm's name of an optimizer: timm says so itself
        second_order = False
    if second_order:
        yield f'--opt {args.opt} wants second derivatives, which --repaint does not compute; use a first-order one'


def _check_images(args: Namespace) -> Iterator[str]:
    reason = '--repaint paints RGB images'
    if args.in_chans not in (None, 3):
        yield f'{reason}, but --in-chans is {args.in_chans}; leave it out'
    if args.input_size is not None and args.input_size[0] != 3:
        yield f'{reason}, but --input-size has {args.input_size[0]} channels; make its first number 3'
    if args.input_img_mode not in (None, 'RGB'):
        yield f'{reason}, but --input-img-mode is {args.input_img_mode}; leave it out'
    sizes_px = {
        '--img-size': [] if args.img_size is None else [args.img_size],
        '--input-size': (args.input_size or [])[1:],
        '--train-img-sizes': args.train_img_sizes or [],
    }
    for flag, values in sizes_px.items():
        if values and min(values) < MIN_IMAGE_PX:
            yield f'--repaint needs images of {MIN_IMAGE_PX} px or more, but {flag} has {min(values)}'


def _check_mixing(args: Namespace) -> Iterator[str]:
    if mixup_active(args) and args.mixup_mode not in MIXUP_MODES:
        yield f'--mixup-mode is {args.mixup_mode}, but with --repaint must be one of {", ".join(MIXUP_MODES)}'
    if mixup_active(args) and args.repaint_consistency:
        yield (
            '--repaint-consistency compares a repaint with its original, which --mixup and --cutmix mix with others; '
            'give --repaint-consistency 0, or leave these out'
        )


def _check_pairs(args: Namespace) -> Iterator[str]:
    if not mixup_active(args) or args.naflex_loader:
        return
    for flag, sizes in (('--batch-size', [args.batch_size]), ('--train-batch-sizes', args.train_batch_sizes or [])):
        odd = [size for size in sizes if size % 2]
        if odd:
            yield f'--mixup and --cutmix mix images in pairs, but {flag} has {odd[0]}; make it even'


GENERAL_CHECKS = (check_numbers, check_words, _check_evaluation, _check_baselines, _check_pairs)
REPAINT_CHECKS = (
    *(_check_limits, _check_phases, _check_generator, _check_masks),
    *(_check_loading, _check_model, _check_images, _check_mixing),
)
