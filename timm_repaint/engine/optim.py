"""Learning rate and optimizer of the task network: timm's factories with the options' values."""

import argparse

import torch
from timm import utils
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.task import TrainingTask

from timm_repaint.log import logger


def resolve_lr(args: argparse.Namespace) -> float:
    """The learning rate: `--lr`, or `--lr-base` scaled by the global batch size over `--lr-base-size`."""
    if args.lr:
        return args.lr
    global_batch_size = args.batch_size * args.world_size * max(1, args.grad_accum_steps)
    adaptive = any(name in args.opt.lower() for name in ('ada', 'lamb'))
    scaling = args.lr_base_scale or ('sqrt' if adaptive else 'linear')
    ratio = global_batch_size / args.lr_base_size
    lr = args.lr_base * (ratio**0.5 if scaling == 'sqrt' else ratio)
    if utils.is_primary(args):
        logger.info(
            'Learning rate %g: base %g for %d images, %s scaling to a global batch of %d.',
            lr, args.lr_base, args.lr_base_size, scaling, global_batch_size,
        )  # fmt: skip
    return lr


def build_optimizer(task: TrainingTask, args: argparse.Namespace, lr: float) -> torch.optim.Optimizer:
    """The task network's optimizer; with feature distillation its projection learns too."""
    kwargs = {**optimizer_kwargs(cfg=args), 'lr': lr, **args.opt_kwargs}
    model = task.get_trainable_module()
    assert model is not None
    optimizer = create_optimizer_v2(model, **kwargs)
    if utils.is_primary(args):
        logger.info('Optimizer %s, learning rate %g, weight decay %g.', args.opt, lr, args.weight_decay)
    return optimizer
