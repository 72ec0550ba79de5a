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
from timm_repaint.task_state import unreadable

# Errors of torch's writer, which does not say why it failed.
TORCH_WRITER = ('inline_container', 'PytorchStreamWriter')


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
