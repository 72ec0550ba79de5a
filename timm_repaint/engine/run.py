"""A training run from options to result: START HERE for the order of the stages."""

import math
import os
import time
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm import utils
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import TrainingTask
from torch import nn

from timm_repaint.baselines.isda import set_isda_epoch
from timm_repaint.config import DEFAULTS
from timm_repaint.engine.announce import announce_end, announce_epoch
from timm_repaint.engine.checkpoint import CheckpointParts, resume, resume_repaint
from timm_repaint.engine.criterion import build_optimizer, build_task, resolve_lr
from timm_repaint.engine.cue_conflict import report_cue_conflict
from timm_repaint.engine.epoch import mean_lr, updates_per_epoch
from timm_repaint.engine.loaders import Loaders, build_loaders
from timm_repaint.engine.mistakes import check_start, explained, refused
from timm_repaint.engine.output import (
    DEFAULT_OUTPUT,
    RunOutput,
    experiment_dir,
    is_in,
    resume_path,
    tell_changed_options,
)
from timm_repaint.engine.parts import Plan, Run, best_by
from timm_repaint.engine.preemption import REQUEUE_STATUS, Preempted, stoppable
from timm_repaint.engine.random_state import seed_epoch, warn_of_inexact_resume
from timm_repaint.engine.repaint_phase import build_erasing, build_repaint
from timm_repaint.engine.repaint_watch import RepaintWatch
from timm_repaint.engine.setup import Network, build_model, place_model, resolve_data, resolve_precision, setup_device
from timm_repaint.engine.task_guard import TaskGuard
from timm_repaint.errors import INTERRUPTED
from timm_repaint.log import logger
from timm_repaint.options.conflicts import resolve_repaint_epochs, resolve_stop_epoch
from timm_repaint.options.run_file import CUE_CONFLICT
from timm_repaint.repaint import Repaint


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
        build_loaders: See `engine/loaders.py`.
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


@explained()
def run_training(args: Namespace, args_text: str, functions: Functions, exact_resume: bool = False) -> int:
    """Train as the options say and leave the results in the run's folder.

    Args:
        args: All options.
        args_text: The same for `args.yaml`.
        functions: Those of the script.
        exact_resume: Whether a resumed run has to end as an uninterrupted one, bit by bit; `--repaint` runs always do,
            others draw their random numbers as timm's script does (see `random_state.py`), and print its result.

    Returns:
        The process's exit status: 0, `REQUEUE_STATUS` after a signal that asked the run to stop, or `INTERRUPTED`.
    """
    exact_resume |= args.repaint
    check_start(args, experiment_dir(args) or args.output or DEFAULT_OUTPUT)
    results: list[dict[str, Any]] = []
    with stoppable() as request:
        checkpoint = resume_path(args)
        run = build_run(args, functions, checkpoint, fresh_workers=exact_resume)
        plan = run.plan
        if plan.start_epoch < plan.stop_epoch:
            logger.info('Epochs %d to %d of %d.', plan.start_epoch, plan.stop_epoch - 1, plan.num_epochs)
            if run.output.folder is not None and checkpoint and is_in(checkpoint, run.output.folder):
                tell_changed_options(args_text, run.output.folder)
        else:
            logger.info('No epoch is left: %d are done, %d are asked for.', plan.start_epoch, plan.stop_epoch)
        try:
            parts = CheckpointParts(run.task, run.repaint, run.task_guard.check)
            run.output.open(parts, run.optimizer, run.precision.loss_scaler, run.metric == 'loss', checkpoint)
            if args.resume == 'auto' and checkpoint and plan.start_epoch >= plan.stop_epoch:
                finish_run(run)
                return 0
            run.output.begin(args_text, plan.start_epoch)
            if exact_resume and utils.is_primary(run.args):
                warn_of_inexact_resume(run.args)
            run_epochs(run, functions, exact_resume, results)
            if run.args.cue_conflict:
                report_cue_conflict(run)
        except Preempted as stop:
            logger.info('%s; --resume auto goes on from last.pth.tar.', stop)
            return REQUEUE_STATUS
        except (KeyboardInterrupt, Exception) as error:
            request.interrupted |= isinstance(error, KeyboardInterrupt)
            if not request.interrupted:  # what else came of a Ctrl-C, such as the end of the loader's workers
                raise
            logger.info('Interrupted.')
        finally:
            run.output.release()
            if run.args.distributed:
                torch.distributed.destroy_process_group()
    run.output.close(results, run.metric, as_timm=not exact_resume)
    if exact_resume:
        announce_end(run, results[-1]['epoch'] + 1 if results else plan.start_epoch, functions.fine_tune_command)
    if request.interrupted:
        return INTERRUPTED
    return 0


def build_network(args: Namespace, functions: Functions) -> Network:
    """The stages before the data."""
    device = setup_device(args)
    precision = resolve_precision(args, device)
    model = functions.build_model(args, functions.create_model)
    with refused('the options of images, such as --input-size, --mean and --std'):
        data_config = functions.resolve_data(args, model)
    num_classes = model.num_classes if args.num_classes is None else args.num_classes
    args = with_values(args, num_classes=num_classes, lr=resolve_lr(args))
    return Network(args, device, precision, place_model(model, args, device, precision.model_dtype), data_config)


def build_run(
    args: Namespace, functions: Functions, checkpoint: str, fresh_workers: bool = False, to_train: bool = True
) -> Run:
    """All stages before the first epoch; no file is written.

    Args:
        args: All options.
        functions: Those of the script.
        checkpoint: What the run goes on from; '': from the start.
        fresh_workers: Whether the loader's processes start anew in each epoch.
        to_train: Whether it trains; False: to look at it, with E and G from the options alone, in one process.
    """
    network = build_network(args, functions)
    args, device, precision, data_config = network.args, network.device, network.precision, network.data_config
    model, model_dtype = network.model, precision.model_dtype
    with refused('the options of data and augmentation, such as --aa and --train-interpolation'):
        loaders = functions.build_loaders(network, fresh_workers)
    with refused('the options of the loss and of distillation, such as --kd-model-name'):
        task = functions.build_task(model, args, device, model_dtype)
    with refused('the options of the optimizer, such as --opt and --opt-kwargs'):
        optimizer = build_optimizer(task, args, args.lr)
    repaint = build_repaint(args, data_config, loaders, device) if args.repaint else None
    epochs_done = resume(task, checkpoint, optimizer, precision, args)
    most = args.repaint_max_nonfinite if args.repaint else DEFAULTS['max_nonfinite']
    guard = TaskGuard(task, most * max(1, args.grad_accum_steps), device)
    if to_train:
        if repaint is not None and checkpoint:
            resume_repaint(repaint, checkpoint, args)
        wrap_task(task, repaint, args, device)
    output = RunOutput(args, data_config['input_size'][-1])
    with refused('the options of the schedule, such as --sched'):
        plan = schedule(args, loaders, optimizer, epochs_done)
    erasing = build_erasing(args, device) if args.repaint else None
    watch = functions.watch()
    return Run(
        args, device, precision, data_config, loaders, task, guard, optimizer, output, plan, repaint, erasing, watch
    )  # fmt: skip


def finish_run(run: Run) -> None:
    """What comes after the last epoch, where a kill came in between."""
    folder, plan = run.output.folder, run.plan
    logger.info('%s is finished: %d of %d epochs done.', folder, plan.start_epoch, plan.stop_epoch)
    if run.args.cue_conflict and folder is not None and not os.path.isfile(os.path.join(folder, CUE_CONFLICT)):
        report_cue_conflict(run)


def with_values(args: Namespace, **values: Any) -> Namespace:
    """A copy of the options with values that were left to be worked out."""
    return Namespace(**{**vars(args), **values})


def wrap_task(task: TrainingTask, repaint: Repaint | None, args: Namespace, device: torch.device) -> None:
    """Compile the networks and wrap them for several processes, as the options ask."""
    if args.torchcompile:
        task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        task.compile_ema(backend=args.torchcompile, mode=args.torchcompile_mode)
        if repaint is not None:
            repaint.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
    if args.distributed:
        device_ids = [device] if device.type != 'cpu' else None
        task.prepare_distributed(device_ids=device_ids, broadcast_buffers=not args.no_ddp_bb)


def schedule(args: Namespace, loaders: Loaders, optimizer: torch.optim.Optimizer, epochs_done: int) -> Plan:
    """The learning-rate schedule over all of `--epochs`, and the first and last epoch of this run."""
    updates = updates_per_epoch(len(loaders.train), max(1, args.grad_accum_steps))
    kwargs = scheduler_kwargs(args, decreasing_metric=best_by(args, loaders) == 'loss')
    lr_scheduler, num_epochs = create_scheduler_v2(optimizer, **kwargs, updates_per_epoch=updates)
    last = resolve_repaint_epochs(args) if args.repaint else num_epochs
    stop_epoch = min(resolve_stop_epoch(args.stop_epoch, num_epochs), last)
    start_epoch = epochs_done if args.start_epoch is None else args.start_epoch
    if lr_scheduler is not None and start_epoch and args.sched_on_updates:
        lr_scheduler.step_update(start_epoch * updates)
    elif lr_scheduler is not None and start_epoch:
        lr_scheduler.step(start_epoch)
    return Plan(start_epoch, stop_epoch, num_epochs, lr_scheduler)


def run_epochs(run: Run, functions: Functions, exact_resume: bool, results: list[dict[str, Any]]) -> None:
    """Train and validate epoch by epoch, and add to `results` what was measured."""
    for epoch in range(run.plan.start_epoch, run.plan.stop_epoch):
        if exact_resume:
            seed_epoch(run.args, epoch, run.task.get_trainable_module(ema=True))
        run.loaders.set_epoch(epoch, run.args.distributed)
        set_isda_epoch(run.task, epoch, run.plan.num_epochs)
        result = run_epoch(run, epoch, functions)
        if result:
            results.append(result)


def run_epoch(run: Run, epoch: int, functions: Functions) -> dict[str, Any] | None:
    """One epoch: train, validate, write the summary, save, step the schedule; None where validation is skipped."""
    args, task, start = run.args, run.task, time.monotonic()
    train_metrics = train_epoch(run, epoch, functions)
    distribute_bn(run, task.get_trainable_module())
    run.task_guard.check()  # ahead of those who would blame the generator
    completed = epoch + 1
    milestone = completed in (args.save_epochs or ())
    if run.repaint is not None:
        train_metrics.update(run.watch.look(run, epoch, train_metrics['d_loss']))
    if completed % args.val_interval and completed != run.plan.stop_epoch and not milestone:
        if run.plan.lr_scheduler is not None:
            run.plan.lr_scheduler.step(completed, metric=None)
        return None
    eval_metrics = evaluate(run, functions)
    run.output.write_summary(epoch, train_metrics, eval_metrics, mean_lr(run.optimizer))
    latest = (eval_metrics or train_metrics)[run.metric]
    if run.output.saver is not None:
        losses = (train_metrics.get('loss', 0.0), (eval_metrics or train_metrics).get('loss', 0.0))
        finite = all(map(math.isfinite, (latest, *losses)))  # else it is the last checkpoint, and never the best
        run.output.saver.save_checkpoint(epoch, metric=latest if finite else None)
        if milestone:
            run.output.saver.save_milestone(completed)
    announce_epoch(run, epoch, latest, time.monotonic() - start)
    if run.plan.lr_scheduler is not None:
        run.plan.lr_scheduler.step(completed, latest)
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
        lr_scheduler=run.plan.lr_scheduler,
        saver=run.output.saver,
        output_dir=run.output.folder,
        amp_autocast=run.precision.autocast,
        loss_scaler=run.precision.loss_scaler,
        model_dtype=run.precision.model_dtype,
        mixup_fn=run.loaders.mixup_fn,
        num_updates_total=run.plan.stop_epoch
        * updates_per_epoch(len(run.loaders.train), max(1, run.args.grad_accum_steps)),
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
