"""The training task: classification, or distillation from a teacher, with timm's losses and task classes."""

import argparse
from typing import Any

import torch
from timm import task as tasks
from timm import utils
from timm.task import ClassificationTask, TrainingTask
from torch import nn

from timm_repaint.baselines.isda import IsdaTask
from timm_repaint.errors import UsageError
from timm_repaint.options.idle import mixup_active


def loss_kwargs(args: argparse.Namespace) -> dict[str, Any]:
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
        kwargs |= {'loss_type': 'bce', 'bce_target_thresh': args.bce_target_thresh, 'bce_sum': args.bce_sum}
        kwargs['pos_weight'] = args.bce_pos_weight
    return kwargs


def build_task(
    model: nn.Module, args: argparse.Namespace, device: torch.device, dtype: torch.dtype | None
) -> TrainingTask:
    """timm's task for the options: `--isda` makes it ISDA, `--kd-model-name` a distillation."""
    common: dict[str, Any] = {'device': device, 'dtype': dtype, 'verbose': utils.is_primary(args)}
    common['criterion_kwargs'] = loss_kwargs(args)
    if args.isda:
        return IsdaTask(model, args.isda, **common)
    if args.kd_model_name is None:
        return ClassificationTask(model, **common)
    common |= {'student_model': model, 'teacher_model': args.kd_model_name}
    common |= {'distill_loss_weight': args.distill_loss_weight, 'task_loss_weight': args.task_loss_weight}
    if args.kd_distill_type == 'logit':
        return tasks.LogitDistillationTask(loss_type=args.kd_loss_type, temperature=args.kd_temperature, **common)
    if args.kd_distill_type == 'feature':
        return tasks.FeatureDistillationTask(
            student_feature_dim=args.kd_student_feature_dim, teacher_feature_dim=args.kd_teacher_feature_dim, **common
        )
    return tasks.TokenDistillationTask(
        distill_type=args.kd_token_distill_type, temperature=args.kd_temperature, **common
    )
