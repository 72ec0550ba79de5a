"""One epoch of training and of validation. Names and arguments of the two functions are timm's."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from timm import utils
from timm.data import Mixup
from timm.task import ClassificationEvaluator, TrainingTask, evaluation_sample_limit
from timm.utils import CheckpointSaver, NativeScaler
from torch import Tensor, nn
from torch.optim import Optimizer

from timm_repaint.engine.epoch import Micro, ProgressLog, accumulate, save_batch_image, synchronize, updates_per_epoch
from timm_repaint.engine.meters import TrainMeters
from timm_repaint.engine.preemption import Preempted, stop_request
from timm_repaint.frozen import frozen
from timm_repaint.log import logger
from timm_repaint.repaint import Repaint

DEFAULT_DEVICE = torch.device('cuda')
LOSS_SCALES = {'none': 0.0, 'sqrt': 0.5, 'linear': 1.0}  # exponents of a ratio of batch sizes


def train_one_epoch(
    epoch: int,
    model: nn.Module,
    loader: Any,
    optimizer: Optimizer,
    args: Namespace,
    task: TrainingTask | None = None,
    device: torch.device = DEFAULT_DEVICE,
    lr_scheduler: Any = None,
    saver: CheckpointSaver | None = None,
    output_dir: str | None = None,
    amp_autocast: Callable[[], AbstractContextManager] = suppress,
    loss_scaler: NativeScaler | None = None,
    model_dtype: torch.dtype | None = None,
    mixup_fn: Mixup | None = None,
    num_updates_total: int | None = None,
    naflex_mode: bool = False,
    repaint: Repaint | None = None,
    erasing: Callable[[Tensor], Tensor] | None = None,
) -> OrderedDict[str, float]:
    """Train the task network for one epoch, behind `repaint` where it is given.

    The arguments but for the last two are those of timm's script (wrappers call it), but the task owns the weight
    average (`--model-ema`). `erasing` acts behind the repaint, as MixUp and CutMix do.

    Returns:
        `loss`: mean training loss over all images and processes; with `repaint` what `TrainMeters` has besides.
    """
    assert task is not None
    switch_mixup_off(loader, mixup_fn, epoch, args)
    num_batches, accum_steps = len(loader), max(1, args.grad_accum_steps)
    num_updates = updates_per_epoch(num_batches, accum_steps)
    meters, progress = TrainMeters(repaint is not None), ProgressLog(epoch, num_updates, args, num_updates_total)
    task.train()
    optimizer.zero_grad()
    for micro in accumulate(loader, num_batches, accum_steps):
        inputs, target = to_device(micro.batch, args, device, model_dtype)
        num_samples = target.shape[0]
        learns = repaint is None or repaint.task_learns
        if repaint is not None:
            with amp_autocast():
                inputs, target = repaint(inputs, target)
        own_target = target
        if mixup_fn is not None and (args.no_prefetcher or repaint is not None):
            inputs, target = mixup_fn(inputs, target)
        if erasing is not None:
            inputs = erasing(inputs)
        progress.got_batch()
        with task_role(task, learns, micro.need_update):
            with amp_autocast():
                result = task(inputs, target)
            scale = batch_loss_scale(loader, num_samples, naflex_mode, args) * rank_scale(num_samples, args, device)
            # Ahead of the step, which may change it.
            scaled_by = 1.0 if repaint is None else amp_scale(loss_scaler, device) / micro.accum_steps
            loss = result['loss'] if repaint is None else result['loss'] + repaint.consistency(result.get('output'))
            loss = loss * (scale / micro.accum_steps)
            if learns:
                backward(loss, task, optimizer, args, loss_scaler, micro.need_update)
            elif loss.requires_grad:  # not with a task weight of 0
                (loss * amp_scale(loss_scaler, device)).backward()  # its input alone gets a gradient
        if learns:
            meters.add_task(result, num_samples, own_target, repaint)
        if repaint is not None:
            meters.add_step(repaint.step(scaled_by, update=micro.need_update))
        progress.ran_batch(num_samples * args.world_size)
        if micro.need_update:
            done = epoch * num_updates + micro.update_idx + 1
            if learns:
                finish_update(task, optimizer, args, device, done)
            progress.updated()
            if progress.due(micro):
                progress.write(micro, meters.text(args, device))
                if args.save_images and utils.is_primary(args) and isinstance(inputs, Tensor) and learns:
                    save_batch_image(inputs, output_dir, micro.batch_idx)
            save_recovery(saver, epoch, micro, args)
            if lr_scheduler is not None:
                lr_scheduler.step_update(num_updates=done)
    if hasattr(optimizer, 'sync_lookahead'):
        optimizer.sync_lookahead()
    return meters.means(args, device)


@contextmanager
def task_role(task: TrainingTask, learns: bool, need_update: bool) -> Iterator[None]:
    """Around a batch: T learns, and its processes average at an update's end; or T stays as it is, bit by bit."""
    with nullcontext() if learns else frozen(task), nullcontext() if learns and need_update else task.no_sync():
        yield


def amp_scale(loss_scaler: NativeScaler | None, device: torch.device) -> Tensor | float:
    """What the gradient scaler multiplies a loss by, a scalar on its device."""
    return 1.0 if loss_scaler is None else loss_scaler._scaler.scale(torch.ones((), device=device))


def to_device(batch: tuple, args: Namespace, device: torch.device, dtype: torch.dtype | None) -> tuple[Any, Tensor]:
    """A loader's batch (images [B, C, H, W], target) on the device; timm's prefetcher, if used, has put it there."""
    inputs, target = batch
    if args.no_prefetcher:
        if isinstance(inputs, dict):
            inputs = {k: v.to(device, dtype=dtype if k == 'patches' else None) for k, v in inputs.items()}
        else:
            inputs = inputs.to(device=device, dtype=dtype)
        target = target.to(device)
    if args.channels_last and isinstance(inputs, Tensor):
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs, target


def switch_mixup_off(loader: Any, mixup_fn: Mixup | None, epoch: int, args: Namespace) -> None:
    """From `--mixup-off-epoch` on, neither the loader nor the device mixes images."""
    if not args.mixup_off_epoch or epoch < args.mixup_off_epoch:
        return
    if getattr(loader, 'mixup_enabled', False):
        loader.mixup_enabled = False
    if mixup_fn is not None:
        mixup_fn.mixup_enabled = False


def batch_loss_scale(loader: Any, batch_size: int, naflex_mode: bool, args: Namespace) -> float:
    """Weight of a batch whose size varies: relative to the mean batch (scheduled) or to `--batch-size` (NaFlex)."""
    if naflex_mode:
        return float((batch_size / args.batch_size) ** LOSS_SCALES[args.naflex_loss_scale])
    mean_size = getattr(getattr(loader, 'batch_sampler', None), 'average_batch_size', None)
    if mean_size is None:
        return 1.0
    return float((batch_size / mean_size) ** LOSS_SCALES[args.variable_batch_loss_scale])


def rank_scale(batch_size: int, args: Namespace, device: torch.device) -> Tensor | float:
    """With NaFlex each process may have another batch size: weight its mean loss by its share, a scalar."""
    if not (args.distributed and args.naflex_loader):
        return 1.0
    total = torch.tensor(float(batch_size), device=device)
    torch.distributed.all_reduce(total)
    return args.world_size * batch_size / total


def backward(
    loss: Tensor,
    task: TrainingTask,
    optimizer: Optimizer,
    args: Namespace,
    loss_scaler: NativeScaler | None,
    need_update: bool,
) -> None:
    """Backward pass of the task's loss, a scalar, and, where an update ends, clipping and the optimizer's step."""
    create_graph = getattr(optimizer, 'is_second_order', False)
    clip_parameters = task.get_clip_parameters(exclude_head='agc' in args.clip_mode)
    if loss_scaler is not None:
        kwargs = {'parameters': clip_parameters, 'create_graph': create_graph, 'need_update': need_update}
        loss_scaler(loss, optimizer, clip_grad=args.clip_grad, clip_mode=args.clip_mode, **kwargs)
        return
    loss.backward(create_graph=create_graph)
    if need_update:
        if args.clip_grad is not None:
            utils.dispatch_clip_grad(clip_parameters, value=args.clip_grad, mode=args.clip_mode)
        optimizer.step()


def finish_update(
    task: TrainingTask, optimizer: Optimizer, args: Namespace, device: torch.device, num_updates: int
) -> None:
    """After a step of the task's optimizer: clear the gradients and move the weight average."""
    optimizer.zero_grad()
    task.update_ema(step=num_updates)
    if args.synchronize_step:
        synchronize(device)


def save_recovery(saver: CheckpointSaver | None, epoch: int, micro: Micro, args: Namespace) -> None:
    """Save a recovery checkpoint at the interval, and if a signal asks the run to stop.

    Raises:
        KeyboardInterrupt: after a Ctrl-C whose own one was lost.
        Preempted: in all processes at the same update, once the first one has saved.
    """
    interval, request = args.recovery_interval, stop_request()
    if request is not None and request.interrupted:
        raise KeyboardInterrupt
    stop = request is not None and request.agreed(args)
    if saver is not None and (stop or (interval and (micro.update_idx + 1) % interval == 0)):
        saver.save_recovery(epoch, batch_idx=micro.update_idx)
        if stop:
            logger.info('Saved %s.', saver.curr_recovery_file)
    if stop:
        if args.distributed:
            torch.distributed.barrier()
        reason = (request and request.name) or 'a signal to another process'
        raise Preempted(f'{reason}: stopped after update {micro.update_idx} of epoch {epoch}')


def validate(
    model: nn.Module,
    loader: Any,
    loss_fn: nn.Module,
    args: Namespace,
    device: torch.device = DEFAULT_DEVICE,
    amp_autocast: Callable[[], AbstractContextManager] = suppress,
    model_dtype: torch.dtype | None = None,
    log_suffix: str = '',
) -> OrderedDict[str, float]:
    """Loss, top-1 and top-5 (percent) of `model` on `loader`, by timm's evaluator, over all processes."""
    evaluator = ClassificationEvaluator(device, max_samples=evaluation_sample_limit(loader), criterion=loss_fn)
    last_idx = len(loader) - 1
    model.eval()
    with torch.inference_mode():
        for batch_idx, batch in enumerate(loader):
            inputs, target = to_device(batch, args, device, model_dtype)
            with amp_autocast():
                output = model(inputs)
            if isinstance(output, (tuple, list)):
                output = output[0]
            if args.tta > 1:  # mean over the views of each image
                output = output.unfold(0, args.tta, args.tta).mean(dim=2)
                target = target[:: args.tta]
            evaluator.update(output, target)
            if utils.is_primary(args) and (batch_idx == last_idx or batch_idx % args.log_interval == 0):
                now = evaluator.summary()
                logger.info(
                    'Test%s: [%4d/%d]  Loss: %6.3f  Acc@1: %7.3f  Acc@5: %7.3f',
                    log_suffix, batch_idx, last_idx, now['loss'], now['top1'], now['top5'],
                )  # fmt: skip
    return evaluator.compute(distributed=args.distributed)
