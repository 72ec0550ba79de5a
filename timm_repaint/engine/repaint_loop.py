"""One epoch of the repaint phase: who learns when, and the optimizers' steps.

Updates follow the pattern of `--repaint-schedule`: at 2:1 E and G learn from every third batch (Repaint section 3.2:
the best of those tried). D and T learn from all batches, and T's pass over the batch serves E and G too; with
`--repaint-separate-batches`, as in the paper, D and T do not learn from those.
"""

import argparse
import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm import utils
from timm.data import Mixup
from torch import Tensor, nn

from timm_repaint.engine.epoch import (
    MeanMeter,
    Micro,
    ProgressLog,
    accumulate,
    save_batch_image,
    updates_per_epoch,
)
from timm_repaint.engine.loop import backward, finish_update, save_recovery, switch_mixup_off, to_device
from timm_repaint.frozen import frozen
from timm_repaint.options.conflicts import parse_schedule
from timm_repaint.task import Painted, RepaintTask, passed_on

GENERATOR_PARTS = ('gan', 'feat', 'kl', 'segment_kl', 'rec', 'task')


def is_generator_update(update: int, schedule: tuple[int, int]) -> bool:
    """Whether update number `update`, counted from 0 over the whole run, is one of E+G."""
    task_updates, generator_updates = schedule
    return update % (task_updates + generator_updates) >= task_updates


class RepaintMeters:
    """Means over an epoch of what the repaint phase reports."""

    def __init__(self) -> None:
        names = ('loss', 'd_loss', *(f'g_{part}' for part in GENERATOR_PARTS), 'hits_repaint', 'hits_original')
        self.meters = {name: MeanMeter() for name in names}

    def add_task(self, losses: dict[str, Any], num_samples: int) -> None:
        self.meters['loss'].update(losses['loss'], num_samples)
        if 'discriminator_loss' in losses:
            self.meters['d_loss'].update(losses['discriminator_loss'])
        for name in ('hits_repaint', 'hits_original'):
            hits, count = losses[name]
            if count:
                self.meters[name].update(100 * hits / count, count)

    def add_generator(self, losses: dict[str, Tensor]) -> None:
        for part in GENERATOR_PARTS:
            self.meters[f'g_{part}'].update(losses[part])

    def means(self, args: argparse.Namespace, device: torch.device) -> OrderedDict[str, float]:
        return OrderedDict((name, meter.mean(args, device)) for name, meter in self.meters.items())

    def text(self, args: argparse.Namespace, device: torch.device) -> str:
        means = self.means(args, device)
        shown = ('loss', 'd_loss', 'g_gan', 'g_feat', 'g_task', 'hits_repaint', 'hits_original')
        # Distillation and detection have no hits, a painter without a network no D.
        return '  '.join(f'{name}: {means[name]:#.3g}' for name in shown if not math.isnan(means[name]))


def repaint_one_epoch(
    epoch: int,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    args: argparse.Namespace,
    task: RepaintTask,
    device: torch.device,
    lr_scheduler: Any = None,
    saver: utils.CheckpointSaver | None = None,
    output_dir: str | None = None,
    amp_autocast: Callable[[], AbstractContextManager] = nullcontext,
    loss_scaler: utils.NativeScaler | None = None,
    model_dtype: torch.dtype | None = None,
    mixup_fn: Mixup | None = None,
) -> OrderedDict[str, float]:
    """Co-train T, D, E and G for one epoch; the arguments are those of `train_one_epoch`.

    Returns:
        Means over the epoch: T's 'loss', D's 'd_loss', the parts of E+G's loss as 'g_…' (nan if no update was theirs),
        T's hits on repaints and on originals in percent.
    """
    switch_mixup_off(loader, mixup_fn, epoch, args)
    num_batches, accum_steps = len(loader), max(1, args.grad_accum_steps)
    num_updates = updates_per_epoch(num_batches, accum_steps)
    pattern = parse_schedule(args.repaint_schedule)
    meters, progress = RepaintMeters(), ProgressLog(epoch, num_updates, args)
    task.train()
    optimizer.zero_grad()
    for micro in accumulate(loader, num_batches, accum_steps):
        batch, target = to_device(micro.batch, args, device, model_dtype)
        progress.got_batch(micro)
        update = epoch * num_updates + micro.update_idx
        generator_update = bool(task.optimizers) and is_generator_update(update, pattern)
        task_update = not (generator_update and args.repaint_separate_batches)
        if task_update:
            learn = update_all if generator_update else update_task_and_discriminator
            losses = learn(task, batch, target, micro, args, amp_autocast, optimizer, loss_scaler)
            meters.add_task(losses, len(target))
        else:
            losses = update_generator(task, batch, target, micro, args, amp_autocast)
        if generator_update:
            meters.add_generator(losses)
        progress.ran_batch(len(target) * args.world_size)
        if micro.need_update:
            if task_update:
                finish_update(task, optimizer, args, device, update + 1)
            progress.updated()
            if progress.due(micro):
                progress.write(micro, meters.text(args, device), optimizer)
                if args.save_images and utils.is_primary(args) and task_update:
                    save_batch_image(losses['images'], output_dir, micro.batch_idx)
            save_recovery(saver, epoch, micro, args)
            if lr_scheduler is not None:
                lr_scheduler.step_update(num_updates=update + 1)
            progress.restart()
    if hasattr(optimizer, 'sync_lookahead'):
        optimizer.sync_lookahead()
    return meters.means(args, device)


def update_task_and_discriminator(
    task: RepaintTask,
    batch: Tensor,
    target: Tensor,
    micro: Micro,
    args: argparse.Namespace,
    amp_autocast: Callable[[], AbstractContextManager],
    optimizer: torch.optim.Optimizer,
    loss_scaler: utils.NativeScaler | None,
    painted: Painted | None = None,
) -> dict[str, Any]:
    """A batch of a D+T update: T learns from repaints and originals, D to tell them apart. E and G stay."""
    with nullcontext() if micro.need_update else task.no_sync():
        with amp_autocast():
            losses = task(batch, target, painted)
        backward(losses['loss'] / micro.accum_steps, task, optimizer, args, loss_scaler, micro.need_update)
        if 'discriminator_loss' in losses:
            loss = losses['discriminator_loss'] / micro.accum_steps
            task.optimizers['discriminator'].backward(loss, micro.need_update, args.distributed)
    return losses


def update_all(
    task: RepaintTask,
    batch: Tensor,
    target: Tensor,
    micro: Micro,
    args: argparse.Namespace,
    amp_autocast: Callable[[], AbstractContextManager],
    optimizer: torch.optim.Optimizer,
    loss_scaler: utils.NativeScaler | None,
) -> dict[str, Any]:
    """A batch of a D+T update from which E and G learn too: its repaints, and T's gradient at them, are made once."""
    buffers = copy_buffers(task.repainter)
    with amp_autocast():
        painted = task.paint(batch, learning=True)
    scale = 1.0 if loss_scaler is None else loss_scaler._scaler.get_scale()  # ahead of the step, which may change it
    task_losses = update_task_and_discriminator(
        task, batch, target, micro, args, amp_autocast, optimizer, loss_scaler, painted
    )
    images, shown_pm1 = len(task_losses['images']), task_losses['shown']
    loss = passed_on(task_losses['loss'], shown_pm1, painted.repaint_pm1, images, scale / micro.accum_steps)
    losses = _learn_to_paint(task, painted, loss, buffers, micro, args, amp_autocast)
    return {**task_losses, **{part: losses[part] for part in GENERATOR_PARTS}}


def update_generator(
    task: RepaintTask,
    batch: Tensor,
    target: Tensor,
    micro: Micro,
    args: argparse.Namespace,
    amp_autocast: Callable[[], AbstractContextManager],
) -> dict[str, Tensor]:
    """A batch of an E+G update: T and D judge, but stay as they are. After a loss that is not finite so do E and G."""
    buffers = copy_buffers(task.repainter)
    with frozen(task.task), task.no_sync():
        with amp_autocast():
            painted = task.paint(batch, learning=True)
            loss = task.task_loss(painted, target)
        return _learn_to_paint(task, painted, loss, buffers, micro, args, amp_autocast)


def _learn_to_paint(
    task: RepaintTask,
    painted: Painted,
    task_loss: Tensor,
    buffers: list[Tensor],
    micro: Micro,
    args: argparse.Namespace,
    amp_autocast: Callable[[], AbstractContextManager],
) -> dict[str, Tensor]:
    """E+G's losses and step, in which D only judges; `buffers` are those from before the repaint."""
    with frozen(task.discriminator):
        with amp_autocast():
            losses = task.generator_losses(painted, task_loss)
        loss = losses['loss'] / micro.accum_steps
        finite = task.optimizers['generator'].backward(loss, micro.need_update, args.distributed)
    for buffer, before in zip(task.repainter.buffers(), buffers, strict=True):
        buffer.copy_(torch.where(finite, buffer, before))  # running statistics would keep one nan for good
    return losses


def copy_buffers(module: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in module.buffers()]
