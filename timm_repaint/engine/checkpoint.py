"""Checkpoints: timm's saver, whose files are whole at any moment, and resuming from a file that nobody has to trust."""

import argparse
import glob
import os
import pickle
from contextlib import suppress
from typing import Any

import torch
from timm import utils
from timm.task import TrainingTask, load_task_ema_checkpoint, resume_task_checkpoint

from timm_repaint.engine.setup import Precision
from timm_repaint.errors import UsageError
from timm_repaint.repaint import Repaint
from timm_repaint.saved import FIRST_FORMAT_KEY, read_checkpoint, unreadable

# Errors of torch's writer, which does not say why it failed.
TORCH_WRITER = ('inline_container', 'PytorchStreamWriter')


REPAINT_KEY = 'repaint'  # E, G, D and their optimizers in a checkpoint


class CheckpointParts:
    """What a checkpoint holds of T, by timm's names, and beside it the repaint part: the saver's `task`."""

    def __init__(self, task: TrainingTask, repaint: Repaint | None) -> None:
        self.task, self.repaint = task, repaint

    def get_checkpoint_state(self, ema: bool = False, **kwargs: Any) -> dict[str, Any]:
        """See timm's `TrainingTask.get_checkpoint_state`."""
        state = self.task.get_checkpoint_state(ema=ema, **kwargs)
        return state if ema or self.repaint is None else {**state, REPAINT_KEY: self.repaint.state_dict()}


class SafeSaver(utils.CheckpointSaver):
    """timm's saver writes a checkpoint beside the last one; here it also takes its place in one step.

    Names, contents and choice of the files are timm's.
    """

    def _save(self, save_path: str, epoch: int, metric: float | None = None) -> None:
        """Write a checkpoint.

        Raises:
            UsageError: if the disk is full or the folder not writable; earlier checkpoints stay.
        """
        try:
            super()._save(save_path, epoch, metric)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not any(name in str(error) for name in TORCH_WRITER):
                raise
            with suppress(OSError):
                os.remove(save_path)
            reason = error.strerror if isinstance(error, OSError) else 'no room on the disk'
            raise UsageError(
                f'cannot write the checkpoint {save_path}: {reason}; the earlier ones are as they were, make room and '
                'go on with --resume auto'
            ) from error

    def _replace(self, src: str, dst: str) -> None:
        os.replace(src, dst)

    def _duplicate(self, src: str, dst: str) -> None:
        """A second name for a checkpoint, or a copy where the file system has no links."""
        beside = f'{dst}.part'
        with suppress(FileNotFoundError):
            os.remove(beside)
        super()._duplicate(src, beside)
        os.replace(beside, dst)
        with suppress(FileNotFoundError):  # names of one file: replacing one by the other does nothing
            os.remove(beside)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of an earlier run, and with its last two recovery checkpoints, the ones to delete."""
        super().load_state_dict(state_dict)
        pattern = os.path.join(glob.escape(self.recovery_dir), f'{self.recovery_prefix}-*{self.extension}')
        found = sorted(glob.glob(pattern), key=os.path.getmtime)
        self.prev_recovery_file, self.curr_recovery_file = ['', '', *found][-2:]


def resume(
    task: TrainingTask,
    checkpoint: str,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    args: argparse.Namespace,
) -> int:
    """Load `checkpoint` and create the weight average; returns the epoch to go on with.

    timm's functions load tensors and plain values only.

    Raises:
        UsageError: if the file is no checkpoint, holds anything else, or is of another model.
    """
    epoch = None
    if checkpoint:
        try:
            epoch = resume_task_checkpoint(
                task,
                checkpoint,
                optimizer=None if args.no_resume_opt else optimizer,
                loss_scaler=None if args.no_resume_opt else precision.loss_scaler,
                log_info=utils.is_primary(args),
            )
        except (pickle.UnpicklingError, EOFError) as error:
            raise unreadable(checkpoint, error) from error
        except RuntimeError as error:  # torch lists the keys that differ
            raise UsageError(f'checkpoint {checkpoint} does not fit --model {args.model}: {error}') from error
    if args.model_ema:
        task.setup_ema(
            decay=args.model_ema_decay,
            use_warmup=args.model_ema_warmup,
            device=torch.device('cpu') if args.model_ema_force_cpu else None,
        )
        if checkpoint:
            load_task_ema_checkpoint(task, checkpoint)
    return epoch or 0


def resume_repaint(repaint: Repaint, checkpoint: str, args: argparse.Namespace) -> None:
    """Load E, G, D and their optimizers.

    Raises:
        UsageError: if the checkpoint has none, is of version 0.1, or has a generator of another shape.
    """
    content = read_checkpoint(checkpoint)
    if REPAINT_KEY not in content:
        if REPAINT_KEY in (content.get(FIRST_FORMAT_KEY) or {}):
            raise UsageError(
                f'{checkpoint} was saved by version 0.1, whose repaint phase cannot be resumed; start a new run with '
                f'--initial-checkpoint {checkpoint} --repaint-checkpoint {checkpoint}, or finish it with version 0.1'
            )
        raise UsageError(
            'the checkpoint is of a run without --repaint: start from its classifier with --initial-checkpoint'
        )
    repaint.load_state_dict(content[REPAINT_KEY])
    if args.no_resume_opt:
        for optimizer in repaint.optimizers.values():
            for tensor in optimizer.tensors:
                tensor.zero_()
