"""What each option is for: what other phases, tasks and reports keep, compare or refuse. Each name stands here once
a role, and nowhere else in a list; an option without a role decides what a network learns."""

import argparse
from enum import Enum

from timm_repaint.option import options_of
from timm_repaint.options.repaint_options import CONFIGS


class Role(Enum):
    """Each role with the names of its options."""

    # Where and how fast a run computes.
    MACHINE = (
        'device device_modules workers pin_mem no_prefetcher use_multi_epochs_loader worker_seeding amp amp_dtype '
        'model_dtype channels_last torchcompile torchcompile_mode torchscript fast_norm fuser grad_checkpointing '
        'no_ddp_bb synchronize_step local_rank dist_bn model_ema_force_cpu fh_backend'
    )
    # What it reads.
    DATA = (
        'data data_dir dataset dataset_download class_map train_split val_split num_classes input_key target_key '
        'input_img_mode dataset_trust_remote_code validation_batch_size mask_dir mask_checkpoint resume'
    )
    # What it writes and prints, under which name, and when it gives up.
    OUTPUT = (
        'output experiment seed val_interval log_interval recovery_interval checkpoint_hist save_images save_epochs '
        'log_tensorboard log_wandb wandb_project wandb_tags wandb_resume_id eval_metric cue_conflict '
        'repaint_gallery_interval repaint_max_nonfinite'
    )
    # How long it is, and on how large images and batches.
    SCALE = 'epochs repaint_epochs stop_epoch warmup_epochs batch_size img_size'
    # Saved in the optimizer's state, which overrules the option where a run goes on.
    OPTIMIZER = (
        'opt opt_eps opt_betas opt_kwargs momentum weight_decay layer_decay layer_decay_min_scale '
        'layer_decay_no_opt_scale lr lr_base lr_base_size lr_base_scale'
    )
    # How the first phase starts and ends; the fine-tune phase has its own.
    START = 'repaint resume start_epoch stop_epoch initial_checkpoint pretrained pretrained_backbone'
    # Of classifiers alone, by what a detector lacks.
    WHOLE_IMAGE = (
        'crop_pct train_crop_mode scale ratio train_interpolation color_jitter_prob grayscale_prob gaussian_blur_prob '
        'aa aug_repeats aug_splits tta epoch_repeats naflex_loader train_img_sizes train_batch_sizes '
        'train_batches_per_epoch cue_conflict'
    )
    MIXING = 'mixup cutmix cutmix_minmax reprob resplit cutout'
    CLASSIFIER = (
        'pretrained_path gp head_init_scale head_init_bias in_chans input_size drop drop_connect drop_path drop_block '
        'bn_eps split_bn torchscript grad_checkpointing'
    )
    CLASSIFIER_LOSS = 'smoothing jsd_loss bce_loss isda kd_model_name'
    READER = 'class_map input_img_mode input_key target_key dataset_download dataset_trust_remote_code no_prefetcher'
    # These change how one of the five above works.
    FURTHER = (
        'mixup_prob mixup_switch_prob mixup_mode mixup_off_epoch remode recount bce_sum bce_target_thresh '
        'bce_pos_weight variable_batch_loss_scale train_size_probs train_size_schedule train_size_schedule_spread '
        'train_size_random_mix naflex_train_seq_lens naflex_max_seq_len naflex_patch_sizes naflex_patch_size_probs '
        'naflex_loss_scale naflex_patchify_channels_first kd_distill_type kd_loss_type kd_temperature '
        'kd_student_feature_dim kd_teacher_feature_dim kd_token_distill_type'
    )

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.value.split())


# Do nothing without --repaint.
REPAINT_OPTIONS = frozenset(
    f'{prefix}{name}' for config, prefix in CONFIGS for name, one in options_of(config).items() if one.group
) - {'repaint'}


def is_repaint_option(name: str) -> bool:
    """Whether an option does something only with `--repaint`."""
    return name in REPAINT_OPTIONS


def unlike_defaults(parser: argparse.ArgumentParser, args: argparse.Namespace, names: frozenset[str]) -> list[str]:
    """The options of these names that have another value than the parser's default, as flags."""
    values = vars(args)
    unlike = [name for name in values if name in names and values[name] != parser.get_default(name)]
    return ['--' + name.replace('_', '-') for name in unlike]
