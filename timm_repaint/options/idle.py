"""Options that do nothing beside others, which is said: it would be noticed only after a training."""

import sys
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress

from timm.optim import get_optimizer_info

from timm_repaint.config import idle_beside
from timm_repaint.log import logger
from timm_repaint.masks.choice import idle_beside as idle_masks
from timm_repaint.options.option_table import by_name
from timm_repaint.options.repaint_options import PREFIX, repaint_fields
from timm_repaint.options.roles import REPAINT_OPTIONS, unlike_defaults

STREAMS = ('tfds', 'wds', 'hfids')  # kinds of --dataset


def warn_of_idle(parser: ArgumentParser, args: Namespace) -> None:
    """Name the options that do nothing, each with what makes it so."""
    typed = {word.partition('=')[0] for word in sys.argv}
    for reason, names in (*_timm(args), *_repaint(args)):
        idle = unlike_defaults(parser, args, frozenset(names.split()))
        # Ours with their default: who types --mask fh and forgets --repaint is told, too.
        flags = ['--' + name.replace('_', '-') for name in names.split() if name in REPAINT_OPTIONS]
        idle += [flag for flag in flags if flag in typed and flag not in idle]
        if idle:
            logger.warning('%s these options do nothing: %s', reason, ', '.join(idle))


def mixup_active(args: Namespace) -> bool:
    """Whether MixUp or CutMix make the targets soft."""
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


def _timm(args: Namespace) -> Iterator[tuple[str, str]]:
    """Reasons, and the options of timm's that do nothing for them."""
    aug, none = not args.no_aug, args.sched == 'none'
    # By their word behind `needs` in the table, where that is no option's name: why they do nothing, and whether they
    # do something.
    needs = {
        'noise': ('with --sched none' if none else 'without --lr-noise', args.lr_noise and not none),
        'warmup': ('with --sched none' if none else 'without --warmup-epochs', args.warmup_epochs and not none),
        'mixing': ('without --mixup or --cutmix', mixup_active(args)),
        'erasing': ('without --reprob' if aug else 'with --no-aug', args.reprob and aug),
        'augmentation': ('with --no-aug', aug),
        'no_lr': ('with --lr', not args.lr),
    }
    idle: dict[str, list[str]] = defaultdict(list)
    for name, entry in by_name().items():
        for word in entry.get('needs', '').split():
            reason, something = needs.get(word) or (f'without --{word.replace("_", "-")}', getattr(args, word))
            if not something:
                idle[reason].append(name)
    yield from ((reason, ' '.join(names)) for reason, names in idle.items())
    if mixup_active(args) and not (args.mixup and (args.cutmix or args.cutmix_minmax)):
        yield 'without both --mixup and --cutmix', 'mixup_switch_prob'
    if aug and args.aa and '3a' not in args.aa:
        yield f'with --aa {args.aa}', 'color_jitter color_jitter_prob'
    if args.dataset.partition('/')[0].lower() not in STREAMS:
        lengths = '' if args.dataset == 'shapes' else 'train_num_samples val_num_samples'
        yield 'for a --dataset that is no stream', f'epoch_repeats {lengths}'
    if args.drop_connect is not None:
        yield 'with --drop-connect', 'drop_path'
    if args.input_size is not None:
        yield 'with --input-size', 'img_size'
    read = {name: entry['scheds'].split() for name, entry in by_name().items() if 'scheds' in entry}
    yield f'with --sched {args.sched}', ' '.join(name for name, scheds in read.items() if args.sched not in scheds)
    if none:
        yield 'with --sched none', 'sched_on_updates warmup_epochs lr_noise'
    if args.lr_cycle_limit == 1:
        yield 'with --lr-cycle-limit 1', 'lr_cycle_mul lr_cycle_decay'
    with suppress(ValueError):  # no optimizer of timm's: it says so itself
        takes = get_optimizer_info(args.opt.lower().split('_')[-1])
        has = {'eps': takes.has_eps, 'betas': takes.has_betas, 'momentum': takes.has_momentum}
        lacks = [name for name in has if not has[name]]
        options = [name if name == 'momentum' else f'opt_{name}' for name in lacks]
        if set(args.opt_kwargs) <= set(lacks):  # timm drops them there too
            options.append('opt_kwargs')
        yield f'with --opt {args.opt}', ' '.join(options)


def _repaint(args: Namespace) -> Iterator[tuple[str, str]]:
    """The same of ours."""
    if not args.repaint:
        yield 'without --repaint', ' '.join(sorted(REPAINT_OPTIONS))
        return
    name, names = idle_beside(repaint_fields(args))
    if name:
        value = '' if name == 'freeze' else f' {getattr(args, PREFIX + name)}'
        yield f'with --repaint-{name}{value}', ' '.join(f'{PREFIX}{name}' for name in names)
    yield f'with --mask {args.mask}', ' '.join(idle_masks(args.mask))
