"""Checkpoints: timm's saver, whose files are whole at any moment, and resuming from a file that nobody has to trust."""

import glob
import os
import pickle
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from timm import utils
from timm.task import TrainingTask, load_task_ema_checkpoint, resume_task_checkpoint
from torch.optim import Optimizer

from timm_repaint.engine.setup import MAX_TOLD, Precision
from timm_repaint.errors import UsageError, one_line
from timm_repaint.repaint import Repaint
from timm_repaint.weights import read_checkpoint, unreadable

MAX_EPOCHS = 2**31
SCHEDULED = {'initial_lr', 'lr_scale', 'param_names'}  # of a group of parameters, by timm's factory and schedule
REPAINT_KEY = 'repaint'  # E, G, D and their optimizers in a checkpoint


class CheckpointParts:
    """What a checkpoint holds of T, by timm's names, and beside it the repaint part: the saver's `task`.

    Args:
        task: T with its loss.
        repaint: The part ahead of it, if any.
        check: Is called ahead of each checkpoint; raises if T is not worth one.
    """

    def __init__(self, task: TrainingTask, repaint: Repaint | None, check: Callable[[], object] = lambda: None) -> None:
        self.task, self.repaint, self.check = task, repaint, check

    def get_checkpoint_state(self, ema: bool = False, **kwargs: Any) -> dict[str, Any]:
        """See timm's `TrainingTask.get_checkpoint_state`."""
        if not ema:
            self.check()
        state = self.task.get_checkpoint_state(ema=ema, **kwargs)
        return state if ema or self.repaint is None else {**state, REPAINT_KEY: self.repaint.state_dict()}


class SafeSaver(utils.CheckpointSaver):
    """timm's saver writes a checkpoint beside the last one; here it also takes its place in one step.

    Names, contents and choice of the files are timm's.

    Args:
        args, options: timm's.
        ready: Is called ahead of each file; makes sure that the folder is there.
    """

    def __init__(self, *args: Any, ready: Callable[[], object] = lambda: None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ready = ready

    def _save(self, save_path: str, epoch: int, metric: float | None = None) -> None:
        """Write a checkpoint.

        Raises:
            UsageError: if the disk is full or the folder not writable; earlier checkpoints stay.
        """
        self.ready()
        with told(save_path, save_path), open(save_path, 'wb') as file:
            super()._save(file, epoch, metric)

    def _replace(self, src: str, dst: str) -> None:
        with told(dst, src):
            os.replace(src, dst)

    def _duplicate(self, src: str, dst: str) -> None:
        """A second name for a checkpoint, or a copy where the file system has no links."""
        beside = f'{dst}.part'
        with told(dst, beside):
            with suppress(FileNotFoundError):
                os.remove(beside)
            super()._duplicate(src, beside)
            os.replace(beside, dst)
        with suppress(FileNotFoundError):  # names of one file: replacing one by the other does nothing
            os.remove(beside)

    def save_recovery(self, epoch: int, batch_idx: int = 0) -> None:
        """timm's, which deletes the one before the last; a run that does an epoch again may give the names again."""
        name = f'{self.recovery_prefix}-{epoch}-{batch_idx}{self.extension}'
        kept = [path for path in (self.prev_recovery_file, self.curr_recovery_file) if os.path.basename(path) != name]
        self.prev_recovery_file, self.curr_recovery_file = ['', *kept][-2:]
        super().save_recovery(epoch, batch_idx)

    def _finish_saving(self, epoch: int | None, metric: float | None) -> None:
        """What timm's `save_checkpoint` does once `last` is written, where a kill came in between."""
        if epoch is None:
            return
        path, last = self._checkpoint_path(epoch), os.path.join(self.checkpoint_dir, f'last{self.extension}')
        worst = self.checkpoint_files[-1][1] if len(self.checkpoint_files) >= self.max_history else None
        full = len(self.checkpoint_files) >= self.max_history
        if not os.path.exists(path) and (not full or worst is None or (metric is not None and self.cmp(metric, worst))):
            if full:
                self._cleanup_checkpoints(1)
            self._duplicate(last, path)
            self._track_checkpoint(path, epoch, metric)
        elif self.best_epoch == epoch:
            self._duplicate(last, os.path.join(self.checkpoint_dir, f'model_best{self.extension}'))
        if epoch + 1 in (getattr(self.args, 'save_epochs', None) or ()):
            self.save_milestone(epoch + 1)

    def forget_missing(self) -> None:
        """Drop what somebody has removed: without a best checkpoint the next one is the best."""
        self.checkpoint_files = [entry for entry in self.checkpoint_files if os.path.exists(entry[0])]
        if not os.path.exists(os.path.join(self.checkpoint_dir, f'model_best{self.extension}')):
            self.best_metric = self.best_epoch = None

    def load_state_dict_from_checkpoint(self, checkpoint_path: str) -> bool:
        """timm's; whatever is in the file, it is named."""
        with fitting(checkpoint_path, 'this version'):
            return bool(super().load_state_dict_from_checkpoint(checkpoint_path))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of an earlier run, and with its last two recovery checkpoints, the ones to delete."""
        own = [(os.path.basename(path), metric) for path, metric in state_dict.get('checkpoint_files', [])]
        super().load_state_dict({**state_dict, 'checkpoint_files': own})  # a stranger's names others for deletion
        self._finish_saving(*state_dict.get('pending', (None, None)))
        pattern = os.path.join(glob.escape(self.recovery_dir), f'{self.recovery_prefix}-*{self.extension}')
        found = sorted(glob.glob(pattern), key=os.path.getmtime)
        self.prev_recovery_file, self.curr_recovery_file = ['', '', *found][-2:]


@contextmanager
def told(path: str, written: str) -> Iterator[None]:
    """Inside, a checkpoint is written; an error of the disk's is told in one line.

    Args:
        path: The checkpoint.
        written: The file that is removed where something fails, for it may be half a one.

    Raises:
        UsageError: with the disk's own reason.
    """
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            os.remove(written)
        cause: BaseException | None = error  # torch's writer raises an error of its own over the disk's
        while isinstance(cause, RuntimeError):
            cause = cause.__context__
        if not isinstance(cause, OSError):
            raise
        raise UsageError(
            f'cannot write the checkpoint {path}: {cause.strerror}; the earlier ones are as they were, go on with '
            '--resume auto when that is mended'
        ) from error


def check_same_optimizer(checkpoint: str, optimizer: Optimizer, state: Any) -> None:
    """Refuse the state of another kind of optimizer, or of other groups of parameters: torch would take some of it.

    Raises:
        UsageError: naming the way out.
    """
    way_out = f'with the state of another optimizer in {checkpoint} give --no-resume-opt, to start it afresh'
    try:
        theirs = [set(group) for group in state['param_groups']]
    except (KeyError, TypeError) as error:
        raise UsageError(f'{checkpoint} holds no state of an optimizer: {way_out}') from error
    ours = [set(group) for group in optimizer.param_groups]
    if len(ours) != len(theirs):
        raise UsageError(
            f'the optimizer has {len(ours)} groups of parameters, the one in {checkpoint} {len(theirs)}, as with '
            f'another --weight-decay or --layer-decay; {way_out}'
        )
    if ours[0] - theirs[0] and theirs[0] - ours[0] - SCHEDULED:  # another version of torch has more, or less
        raise UsageError(
            f'the optimizer has {", ".join(sorted(ours[0] - theirs[0]))}, the one in {checkpoint} '
            f'{", ".join(sorted(theirs[0] - ours[0] - SCHEDULED))}: it is of another --opt; {way_out}'
        )


def resume(task: TrainingTask, checkpoint: str, optimizer: Optimizer, precision: Precision, args: Namespace) -> int:
    """Load `checkpoint` and create the weight average; returns the epoch to go on with.

    timm's functions load tensors and plain values only.

    Raises:
        UsageError: if the file is no checkpoint, holds anything else, or is of another model.
    """
    epoch = None
    fits = f'--model {args.model} or its optimizer (--no-resume-opt leaves that out)'
    if checkpoint:
        base: Optimizer = getattr(optimizer, '_base_optimizer', optimizer)  # timm's Lookahead has no hooks
        hook = base.register_load_state_dict_pre_hook(partial(check_same_optimizer, checkpoint))
        with fitting(checkpoint, fits):
            kept = (None, None) if args.no_resume_opt else (optimizer, precision.loss_scaler)
            epoch = resume_task_checkpoint(task, checkpoint, kept[0], kept[1], log_info=utils.is_primary(args))
            if epoch is not None and not (isinstance(epoch, int) and 0 <= epoch < MAX_EPOCHS):
                raise ValueError(f'it is of epoch {epoch!r}')
        hook.remove()
    if args.model_ema:
        device = torch.device('cpu') if args.model_ema_force_cpu else None
        task.setup_ema(decay=args.model_ema_decay, use_warmup=args.model_ema_warmup, device=device)
        if checkpoint:
            with fitting(checkpoint, fits):
                load_task_ema_checkpoint(task, checkpoint)
    return epoch or 0


@contextmanager
def fitting(checkpoint: str, what: str) -> Iterator[None]:
    """Inside, a checkpoint is loaded; if that fails in any way, the file is named and what it does not fit.

    Raises:
        UsageError: then.
    """
    try:
        yield
    except UsageError:
        raise
    except (pickle.UnpicklingError, EOFError) as error:
        raise unreadable(checkpoint, error) from error
    except Exception as error:  # torch lists the keys that differ; a damaged file makes it raise nearly anything
        told = one_line(f'{type(error).__name__}: {error}')[:MAX_TOLD]
        raise UsageError(f'checkpoint {checkpoint} does not fit {what}: {told}') from error


def resume_repaint(repaint: Repaint, checkpoint: str, args: Namespace) -> None:
    """Load E, G, D and their optimizers.

    Raises:
        UsageError: if the checkpoint has none or those of version 0.1, or has a generator of another shape.
    """
    content = read_checkpoint(checkpoint)
    if not isinstance(content, Mapping) or not isinstance(content.get(REPAINT_KEY), Mapping):
        raise UsageError(
            f'{checkpoint} is of a run without --repaint, or of version 0.1, which is not resumed: start '
            f'anew with --initial-checkpoint {checkpoint}'
        )
    with fitting(checkpoint, 'the options of --repaint'):
        repaint.load_state_dict(content[REPAINT_KEY])
    if args.no_resume_opt:
        for optimizer in repaint.optimizers.values():
            for tensor in optimizer.tensors:
                tensor.zero_()
