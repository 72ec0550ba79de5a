"""Options that do nothing beside others, which is said: it would be noticed only after a training."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import suppress

from timm.optim import get_optimizer_info

from timm_repaint.options.roles import REPAINT_OPTIONS, unlike_defaults
from timm_repaint.painters import PAINTERS

_logger = logging.getLogger('timm_repaint')
SHAPE = 'repaint_width repaint_latent repaint_latent_dim repaint_temperature'
LEARNING = (
    'repaint_schedule repaint_separate_batches repaint_task_weight repaint_gan_loss repaint_feat_weight '
    'repaint_kl_weight repaint_segment_kl_weight repaint_g_lr repaint_d_lr repaint_max_nonfinite'
)
FH = 'fh_scale fh_sigma fh_min_size fh_backend'
AUGMENTATION = (
    'train_crop_mode scale ratio train_interpolation hflip vflip color_jitter color_jitter_prob grayscale_prob '
    'gaussian_blur_prob aa'
)
MIXING = 'mixup_prob mixup_switch_prob mixup_mode mixup_off_epoch'
ERASING = 'remode recount resplit'
SIZES = 'train_batch_sizes train_size_probs train_size_schedule train_size_schedule_spread train_size_random_mix'
DISTILLATION = (
    'kd_distill_type kd_loss_type kd_temperature kd_student_feature_dim kd_teacher_feature_dim kd_token_distill_type '
    'distill_loss_weight task_loss_weight'
)
NAFLEX = (
    'naflex_train_seq_lens naflex_max_seq_len naflex_patch_sizes naflex_patch_size_probs naflex_loss_scale '
    'naflex_patchify_channels_first'
)
# What only some of timm's schedules read.
SCHEDULES = {
    'lr_cycle_mul lr_cycle_decay lr_cycle_limit': 'cosine tanh poly',
    'lr_k_decay': 'cosine poly',
    'min_lr': 'cosine tanh poly plateau wsd rsqrt',
    'decay_milestones': 'multistep',
    'decay_epochs': 'step wsd rsqrt',
    'decay_rate': 'step multistep plateau poly',
    'patience_epochs': 'plateau',
    'cooldown_epochs': 'cosine tanh poly wsd rsqrt',
}
NOISE = 'lr_noise_pct lr_noise_std'
WARMUP = 'warmup_lr warmup_prefix'


def warn_of_idle(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Name the options that do nothing, each with what makes it so."""
    for reason, names in (*_timm(args), *_repaint(args)):
        idle = unlike_defaults(parser, args, frozenset(names.split()))
        if idle:
            _logger.warning('%s these options do nothing: %s', reason, ', '.join(idle))


def mixup_active(args: argparse.Namespace) -> bool:
    """Whether MixUp or CutMix make the targets soft."""
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


def _timm(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Reasons, and the options of timm's that do nothing for them."""
    without = {
        '--pretrained': (args.pretrained, 'pretrained_path'),
        '--resume': (args.resume, 'no_resume_opt'),
        '--amp': (args.amp, 'amp_dtype'),
        '--torchcompile': (args.torchcompile, 'torchcompile_mode'),
        '--clip-grad': (args.clip_grad is not None, 'clip_mode'),
        '--layer-decay': (args.layer_decay is not None, 'layer_decay_min_scale layer_decay_no_opt_scale'),
        '--lr-noise': (args.lr_noise, NOISE),
        '--warmup-epochs': (args.warmup_epochs, WARMUP),
        '--mixup or --cutmix': (mixup_active(args), MIXING),
        '--reprob': (args.reprob, ERASING),
        '--bce-loss': (args.bce_loss, 'bce_sum bce_target_thresh bce_pos_weight'),
        '--kd-model-name': (args.kd_model_name is not None, DISTILLATION),
        '--model-ema': (args.model_ema, 'model_ema_force_cpu model_ema_decay model_ema_warmup'),
        '--train-img-sizes': (args.train_img_sizes, SIZES),
        '--naflex-loader': (args.naflex_loader, NAFLEX),
        '--log-wandb': (args.log_wandb, 'wandb_project wandb_tags wandb_resume_id'),
    }
    yield from ((f'without {needed}', names) for needed, (there, names) in without.items() if not there)
    if mixup_active(args) and not (args.mixup and (args.cutmix or args.cutmix_minmax)):
        yield 'without both --mixup and --cutmix', 'mixup_switch_prob'
    if args.lr:
        yield 'with --lr', 'lr_base lr_base_size lr_base_scale'
    if args.no_aug:
        yield 'with --no-aug', f'{AUGMENTATION} reprob {ERASING}'
    elif args.aa and '3a' not in args.aa:
        yield f'with --aa {args.aa}', 'color_jitter color_jitter_prob'
    if args.drop_connect is not None:
        yield 'with --drop-connect', 'drop_path'
    if args.input_size is not None:
        yield 'with --input-size', 'img_size'
    if not args.val_split:
        yield 'without --val-split', 'validation_batch_size tta val_num_samples'
    for names, schedules in SCHEDULES.items():
        if args.sched not in schedules.split():
            yield f'with --sched {args.sched}', names
    if args.sched == 'none':
        yield 'with --sched none', f'sched_on_updates warmup_epochs {WARMUP} lr_noise {NOISE}'
    if args.lr_cycle_limit == 1:
        yield 'with --lr-cycle-limit 1', 'lr_cycle_mul lr_cycle_decay'
    with suppress(ValueError):  # no optimizer of timm's: it says so itself
        takes = get_optimizer_info(args.opt.lower().split('_')[-1])
        has = {'eps': takes.has_eps, 'betas': takes.has_betas, 'momentum': takes.has_momentum}
        idle = [name for name in has if not has[name]]
        options = [name if name == 'momentum' else f'opt_{name}' for name in idle]
        if set(args.opt_kwargs) <= set(idle):  # timm drops them there too
            options.append('opt_kwargs')
        yield f'with --opt {args.opt}', ' '.join(options)


def _repaint(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The same of ours."""
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
