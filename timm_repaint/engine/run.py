"""A training run from options to result: START HERE for the order of the stages."""

import argparse
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm import utils
from timm.task import TrainingTask
from torch import nn

from timm_repaint.baselines.isda import set_isda_epoch
from timm_repaint.engine.checkpoint import CheckpointParts, resume, resume_repaint
from timm_repaint.engine.criterion import build_task
from timm_repaint.engine.cue_conflict import report_cue_conflict
from timm_repaint.engine.data import Loaders, build_loaders
from timm_repaint.engine.epoch import mean_lr, updates_per_epoch
from timm_repaint.engine.optim import build_optimizer, build_scheduler, forward_schedule, resolve_lr
from timm_repaint.engine.output import RunOutput, resume_path
from timm_repaint.engine.parts import Run
from timm_repaint.engine.preemption import REQUEUE_STATUS, Preempted, stoppable
from timm_repaint.engine.random_state import seed_epoch, warn_of_inexact_resume
from timm_repaint.engine.repaint import build_erasing, build_repaint, finish_repaint_phase
from timm_repaint.engine.setup import build_model, place_model, resolve_data, resolve_precision, setup_device
from timm_repaint.engine.watch import RepaintWatch
from timm_repaint.options.conflicts import resolve_repaint_epochs, resolve_stop_epoch
from timm_repaint.repaint import Repaint

_logger = logging.getLogger('timm_repaint')


@dataclass(frozen=True)
class Functions:
    """What differs between tasks: the stages that are not the same for classifiers and detectors.

    Attributes:
        create_model: The first three are those that `train.py` names at module level, so that a wrapper which replaces
            them there is heard.
        train_one_epoch: One epoch of plain training.
        validate: Metrics on the validation split.
        build_model: (args, create_model) -> T, which says its `num_classes`.
        resolve_data: (args, T) -> timm's data configuration.
        build_loaders: See `engine/data.py`.
        build_task: (T, args, device, dtype) -> T with its loss.
        watch: Makes what looks at the repaints after each epoch.
        fine_tune_command: What the user types, ahead of the run's folder, for the second phase.
    """

    create_model: Callable[..., nn.Module]
    train_one_epoch: Callable[..., OrderedDict[str, float]]
    validate: Callable[..., OrderedDict[str, float]]
    build_model: Callable[..., Any] = build_model
    resolve_data: Callable[..., dict[str, Any]] = resolve_data
    build_loaders: Callable[..., Loaders] = build_loaders
    build_task: Callable[..., TrainingTask] = build_task
    watch: Callable[[], RepaintWatch] = RepaintWatch
    fine_tune_command: str = 'python fine_tune.py'


def run_training(args: argparse.Namespace, args_text: str, functions: Functions, exact_resume: bool = False) -> int:
    """Train as the options say and leave the results in the run's folder.

    Args:
        args: All options.
        args_text: The same for `args.yaml`.
        functions: Those of the script.
        exact_resume: Whether a resumed run has to end as an uninterrupted one, bit by bit; `--repaint` runs always do,
            others draw their random numbers as timm's script does (see `random_state.py`).

    Returns:
        The process's exit status: 0, or `REQUEUE_STATUS` after a signal that asked the run to stop.
    """
    with stoppable():
        run = prepare(args, args_text, functions, exact_resume or args.repaint)
        if run is None:
            return 0
        try:
            results = run_epochs(run, functions)
            if run.args.cue_conflict:
                report_cue_conflict(run)
        except Preempted as stop:
            if utils.is_primary(run.args):
                _logger.info('%s; --resume auto goes on from last.pth.tar.', stop)
            return REQUEUE_STATUS
        finally:
            if run.args.distributed:
                torch.distributed.destroy_process_group()
    run.output.close(results, run.metric, run.decreasing_metric)
    if run.repaint is not None:
        completed = results[-1]['epoch'] + 1 if results else run.start_epoch
        finish_repaint_phase(run, completed, functions.fine_tune_command)
    return 0


def prepare(args: argparse.Namespace, args_text: str, functions: Functions, exact_resume: bool) -> Run | None:
    """All stages before the first epoch; None if `--resume auto` finds a finished run."""
    device = setup_device(args)
    precision = resolve_precision(args, device)
    checkpoint = resume_path(args)
    model = functions.build_model(args, functions.create_model)
    data_config = functions.resolve_data(args, model)
    num_classes = model.num_classes if args.num_classes is None else args.num_classes
    args = with_values(args, num_classes=num_classes, lr=resolve_lr(args))
    model = place_model(model, args, device, precision.model_dtype)
    loaders = functions.build_loaders(
        args, data_config, model, device, precision.model_dtype, fresh_workers=exact_resume
    )
    task = functions.build_task(model, args, device, precision.model_dtype)
    optimizer = build_optimizer(task, args, args.lr)
    repaint = build_repaint(args, data_config, loaders, device) if args.repaint else None
    resume_epoch = resume(task, checkpoint, optimizer, precision, args)
    if repaint is not None and checkpoint:
        resume_repaint(repaint, checkpoint, args)
    wrap_task(task, repaint, args, device)
    output = RunOutput(args, data_config['input_size'][-1])
    run = Run(args, device, precision, data_config, loaders, task, optimizer, None, output, resume_epoch, 0, 0)
    run.repaint, run.erasing = repaint, build_erasing(args, device) if args.repaint else None
    run.exact_resume, run.watch = exact_resume, functions.watch()
    schedule(run)
    if args.resume == 'auto' and checkpoint and run.start_epoch >= run.stop_epoch:
        _logger.info('%s is finished: %d of %d epochs done.', output.folder, run.start_epoch, run.stop_epoch)
        return None
    parts = CheckpointParts(task, repaint)
    output.open(parts, optimizer, precision.loss_scaler, args_text, run.decreasing_metric)
    if output.saver is not None and args.resume == 'auto' and checkpoint:
        output.saver.load_state_dict_from_checkpoint(checkpoint)
    output.trim_summary(run.start_epoch)
    if exact_resume and utils.is_primary(args):
        warn_of_inexact_resume(args)
    return run


def with_values(args: argparse.Namespace, **values: Any) -> argparse.Namespace:
    """A copy of the options with values that were left to be worked out."""
    return argparse.Namespace(**{**vars(args), **values})


def wrap_task(task: TrainingTask, repaint: Repaint | None, args: argparse.Namespace, device: torch.device) -> None:
    """Compile the networks and wrap them for several processes, as the options ask."""
    if args.torchcompile:
        task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        task.compile_ema(backend=args.torchcompile, mode=args.torchcompile_mode)
        if repaint is not None:
            repaint.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
    if args.distributed:
        device_ids = [device] if device.type != 'cpu' else None
        task.prepare_distributed(device_ids=device_ids, broadcast_buffers=not args.no_ddp_bb)


def schedule(run: Run) -> None:
    """Create the learning-rate schedule over all of `--epochs`, and find the first and last epoch of this run."""
    args = run.args
    updates = updates_per_epoch(run.loaders.batches_per_epoch, max(1, args.grad_accum_steps))
    run.lr_scheduler, run.num_epochs = build_scheduler(run.optimizer, args, updates, run.decreasing_metric)
    last = resolve_repaint_epochs(args) if args.repaint else run.num_epochs
    run.stop_epoch = min(resolve_stop_epoch(args.stop_epoch, run.num_epochs), last)
    if args.start_epoch is not None:
        run.start_epoch = args.start_epoch
    forward_schedule(run.lr_scheduler, args, run.start_epoch, updates)
    if utils.is_primary(args):
        _logger.info('Epochs %d to %d of %d.', run.start_epoch, run.stop_epoch - 1, run.num_epochs)


def run_epochs(run: Run, functions: Functions) -> list[dict[str, Any]]:
    """Train and validate epoch by epoch; an interrupt (Ctrl-C) ends the run in order."""
    results: list[dict[str, Any]] = []
    try:
        for epoch in range(run.start_epoch, run.stop_epoch):
            if run.exact_resume:
                seed_epoch(run.args, epoch)
            run.loaders.set_epoch(epoch, run.args.distributed)
            set_isda_epoch(run.task, epoch, run.num_epochs)
            result = run_epoch(run, epoch, functions)
            if result:
                results.append(result)
    except KeyboardInterrupt:
        _logger.info('Interrupted.')
    return results


def run_epoch(run: Run, epoch: int, functions: Functions) -> dict[str, Any] | None:
    """One epoch: train, validate, write the summary, save, step the schedule; None where validation is skipped."""
    args, task = run.args, run.task
    train_metrics = train_epoch(run, epoch, functions)
    distribute_bn(run, task.get_trainable_module())
    completed = epoch + 1
    milestone = completed in (args.save_epochs or ())
    if run.repaint is not None:
        train_metrics.update(run.watch.look(run, epoch, train_metrics['d_loss']))
    if completed % args.val_interval and completed != run.stop_epoch and not milestone:
        if run.lr_scheduler is not None:
            run.lr_scheduler.step(completed, metric=None)
        return None
    eval_metrics = evaluate(run, functions)
    run.output.write_summary(epoch, train_metrics, eval_metrics, mean_lr(run.optimizer))
    latest = (eval_metrics or train_metrics)[run.metric]
    if run.output.saver is not None:
        run.output.saver.save_checkpoint(epoch, metric=latest)
        if milestone:
            run.output.saver.save_milestone(completed)
    if run.lr_scheduler is not None:
        run.lr_scheduler.step(completed, latest)
    result: dict[str, Any] = {'epoch': epoch, 'train': train_metrics}
    if eval_metrics is not None:
        result['validation'] = eval_metrics
    return result


def train_epoch(run: Run, epoch: int, functions: Functions) -> OrderedDict[str, float]:
    """One epoch by the script's function; wrappers need to know of repaints only where there are some."""
    behind: dict[str, Any] = {} if run.repaint is None else {'repaint': run.repaint, 'erasing': run.erasing}
    return functions.train_one_epoch(
        epoch,
        run.task.get_trainable_module(),
        run.loaders.train,
        run.optimizer,
        run.args,
        task=run.task,
        device=run.device,
        lr_scheduler=run.lr_scheduler,
        saver=run.output.saver,
        output_dir=run.output.folder,
        amp_autocast=run.precision.autocast,
        loss_scaler=run.precision.loss_scaler,
        model_dtype=run.precision.model_dtype,
        mixup_fn=run.loaders.mixup_fn,
        num_updates_total=run.num_epochs
        * updates_per_epoch(run.loaders.batches_per_epoch, max(1, run.args.grad_accum_steps)),
        naflex_mode=run.args.naflex_loader,
        **behind,
    )


def distribute_bn(run: Run, model: nn.Module | None) -> None:
    """Bring the running batch-norm statistics of all processes together (`--dist-bn`)."""
    args = run.args
    if args.distributed and args.dist_bn in ('broadcast', 'reduce') and not args.sync_bn and model is not None:
        utils.distribute_bn(model, args.world_size, args.dist_bn == 'reduce')


def evaluate(run: Run, functions: Functions) -> OrderedDict[str, float] | None:
    """Metrics on the validation split; those of the weight average where there is one on the device."""
    if run.loaders.eval is None:
        return None
    args, task = run.args, run.task
    options: dict[str, Any] = {
        'device': run.device,
        'amp_autocast': run.precision.autocast,
        'model_dtype': run.precision.model_dtype,
    }
    loss_fn = nn.CrossEntropyLoss().to(run.device)
    metrics = functions.validate(task.get_eval_model(), run.loaders.eval, loss_fn, args, **options)
    if args.model_ema and not args.model_ema_force_cpu:
        distribute_bn(run, task.get_trainable_module(ema=True))
        ema_model = task.get_eval_model(ema=True)
        metrics = functions.validate(ema_model, run.loaders.eval, loss_fn, args, log_suffix=' (EMA)', **options)
    return metrics
