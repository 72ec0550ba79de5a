"""The ranges of timm's numbers, and the words of its options that have no `choices`.

Outside of them its script ends with a traceback, trains nothing, or does as if there were another.
"""

import argparse
import math
from collections.abc import Iterator

from timm_repaint.option import ABOVE_ZERO, ONE_OR_MORE, ZERO_OR_MORE, Limit

WHOLE = Limit(lambda value: value >= 0, '0 or more')
SHARE = Limit(lambda value: 0 <= value <= 1, 'from 0 to 1')
BELOW_ONE = Limit(lambda value: 0 <= value < 1, '0 or more and below 1')
NOT_ONE = Limit(lambda value: value == 0 or value >= 2, '0, or 2 or more')
FINITE = Limit(math.isfinite, 'a finite number')
SEED = Limit(lambda value: 0 <= value < 2**32 - 2**16, 'from 0 to 4294901759')

LIMITS: tuple[tuple[Limit, str], ...] = (
    (
        ONE_OR_MORE,
        'train_num_samples val_num_samples num_classes img_size in_chans input_size batch_size validation_batch_size '
        'lr_base_size epochs checkpoint_hist log_interval val_interval save_epochs train_img_sizes train_batch_sizes '
        'train_batches_per_epoch naflex_train_seq_lens naflex_max_seq_len naflex_patch_sizes recount',
    ),
    (
        WHOLE,
        'workers grad_accum_steps start_epoch warmup_epochs cooldown_epochs patience_epochs mixup_off_epoch '
        'recovery_interval tta clip_grad',
    ),
    (NOT_ONE, 'aug_splits'),
    (ABOVE_ZERO, 'crop_pct std scale ratio lr_base decay_epochs kd_temperature'),
    (
        ZERO_OR_MORE,
        'epoch_repeats lr min_lr warmup_lr weight_decay momentum aug_repeats mixup cutmix layer_decay opt_eps '
        'decay_rate color_jitter',
    ),
    (
        SHARE,
        'hflip vflip color_jitter_prob grayscale_prob gaussian_blur_prob reprob mixup_prob mixup_switch_prob '
        'cutmix_minmax model_ema_decay train_size_random_mix',
    ),
    (BELOW_ONE, 'smoothing drop drop_connect drop_path'),
    (
        FINITE,
        'head_init_scale head_init_bias mean lr_noise lr_noise_pct lr_noise_std lr_cycle_mul lr_cycle_decay lr_k_decay '
        'bce_target_thresh bce_pos_weight drop_block bn_momentum bn_eps distill_loss_weight task_loss_weight opt_betas '
        'layer_decay_min_scale layer_decay_no_opt_scale train_size_schedule_spread train_size_probs '
        'naflex_patch_size_probs',
    ),
    (SEED, 'seed'),
)
WORDS = {
    'clip_mode': ('norm', 'value', 'agc'),
    'dist_bn': ('reduce', 'broadcast', ''),
    'lr_base_scale': ('linear', 'sqrt', ''),
    'worker_seeding': ('all', 'part'),
}


def check_numbers(args: argparse.Namespace) -> Iterator[str]:
    """A sentence for each number that is out of its range; options that are not set are not looked at."""
    for limit, names in LIMITS:
        for name in names.split():
            value = getattr(args, name, None)
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(one, (int, float)) and not isinstance(one, bool) and not limit.holds(one):
                    yield f'--{name.replace("_", "-")} is {one}; it must be {limit.wanted}'


def check_words(args: argparse.Namespace) -> Iterator[str]:
    """A sentence for each word that is none of those."""
    for name, words in WORDS.items():
        if getattr(args, name) not in words:
            yield f'--{name.replace("_", "-")} is {getattr(args, name)!r}; choose one of {", ".join(map(repr, words))}'
