"""Options that do nothing beside others, which is said: it would be noticed only after a training."""

import argparse
import logging
from collections.abc import Iterator

from timm_repaint.options.roles import REPAINT_OPTIONS, unlike_defaults
from timm_repaint.painters import PAINTERS

_logger = logging.getLogger('timm_repaint')
SHAPE = 'repaint_width repaint_latent repaint_latent_dim repaint_temperature'
LEARNING = (
    'repaint_schedule repaint_separate_batches repaint_task_weight repaint_gan_loss repaint_feat_weight '
    'repaint_kl_weight repaint_segment_kl_weight repaint_g_lr repaint_d_lr repaint_max_nonfinite'
)
FH = 'fh_scale fh_sigma fh_min_size fh_backend'


def warn_of_idle(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Name the options that do nothing, each with what makes it so."""
    for reason, names in _idle(args):
        idle = unlike_defaults(parser, args, frozenset(names.split()))
        if idle:
            _logger.warning('%s these options do nothing: %s', reason, ', '.join(idle))


def _idle(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Reasons, and the options that do nothing for them."""
    if not args.pretrained:
        yield 'without --pretrained', 'pretrained_path'
    if not args.repaint:
        yield 'without --repaint', ' '.join(sorted(REPAINT_OPTIONS))
        return
    if args.repaint_generator in PAINTERS:
        yield f'with --repaint-generator {args.repaint_generator}, which has no network,', f'{SHAPE} {LEARNING}'
    elif args.repaint_freeze:
        yield 'with --repaint-freeze', LEARNING
    elif args.repaint_latent == 'global' and not args.repaint_checkpoint:
        yield 'with --repaint-latent global', 'repaint_segment_kl_weight'
    if args.mask != 'fh':
        yield f'with --mask {args.mask}', FH
    if args.mask not in ('deeplabv2', 'deeplabv3'):
        yield f'with --mask {args.mask}', 'mask_checkpoint'
