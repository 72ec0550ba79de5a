"""The training task, classification or distillation from a teacher, and how T learns it: timm's factories."""

from argparse import Namespace
from typing import Any

import torch
from timm import task as tasks
from timm import utils
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.task import ClassificationTask, TrainingTask
from torch import nn

from timm_repaint.baselines.isda import IsdaTask
from timm_repaint.engine.setup import options_as
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.options.idle import mixup_active


def loss_kwargs(args: Namespace) -> dict[str, Any]:
    """Arguments of timm's `create_classification_loss` for the loss options.

    Raises:
        UsageError: for `--jsd-loss` without at least two `--aug-splits`.
    """
    if args.jsd_loss:
        if args.aug_splits <= 1:
            raise UsageError(f'--jsd-loss compares views: give --aug-splits 2 or more, got {args.aug_splits}')
        return {'loss_type': 'jsd', 'smoothing': args.smoothing, 'jsd_splits': args.aug_splits}
    kwargs: dict[str, Any] = {'smoothing': args.smoothing, 'soft_targets': mixup_active(args)}
    if args.bce_loss:
        kwargs |= {'loss_type': 'bce', **options_as(args, 'bce_target_thresh bce_sum pos_weight=bce_pos_weight')}
    return kwargs


def build_task(model: nn.Module, args: Namespace, device: torch.device, dtype: torch.dtype | None) -> TrainingTask:
    """timm's task for the options: `--isda` makes it ISDA, `--kd-model-name` a distillation."""
    common: dict[str, Any] = {'device': device, 'dtype': dtype, 'verbose': utils.is_primary(args)}
    common['criterion_kwargs'] = loss_kwargs(args)
    if args.isda:
        return IsdaTask(model, args.isda, **common)
    if args.kd_model_name is None:
        return ClassificationTask(model, **common)
    common |= options_as(args, 'teacher_model=kd_model_name distill_loss_weight task_loss_weight')
    common['student_model'] = model
    if args.kd_distill_type == 'logit':
        return tasks.LogitDistillationTask(loss_type=args.kd_loss_type, temperature=args.kd_temperature, **common)
    if args.kd_distill_type == 'feature':
        return tasks.FeatureDistillationTask(
            student_feature_dim=args.kd_student_feature_dim, teacher_feature_dim=args.kd_teacher_feature_dim, **common
        )
    return tasks.TokenDistillationTask(
        distill_type=args.kd_token_distill_type, temperature=args.kd_temperature, **common
    )


def resolve_lr(args: Namespace) -> float:
    """The learning rate: `--lr`, or `--lr-base` scaled by the global batch size over `--lr-base-size`."""
    if args.lr:
        return args.lr
    global_batch_size = args.batch_size * args.world_size * max(1, args.grad_accum_steps)
    adaptive = any(name in args.opt.lower() for name in ('ada', 'lamb'))
    scaling = args.lr_base_scale or ('sqrt' if adaptive else 'linear')
    ratio = global_batch_size / args.lr_base_size
    lr = args.lr_base * (ratio**0.5 if scaling == 'sqrt' else ratio)
    logger.info(
        'Learning rate %g: base %g for %d images, %s scaling to a global batch of %d.',
        lr, args.lr_base, args.lr_base_size, scaling, global_batch_size,
    )  # fmt: skip
    return lr


def build_optimizer(task: TrainingTask, args: Namespace, lr: float) -> torch.optim.Optimizer:
    """The task network's optimizer; with feature distillation its projection learns too."""
    kwargs = {**optimizer_kwargs(cfg=args), 'lr': lr, **args.opt_kwargs}
    model = task.get_trainable_module()
    assert model is not None
    optimizer = create_optimizer_v2(model, **kwargs)
    logger.info('Optimizer %s, learning rate %g, weight decay %g.', args.opt, lr, args.weight_decay)
    return optimizer
