"""What a run leaves behind: its folder, checkpoints, `summary.csv`, and records for W&B or TensorBoard."""

import csv
import json
import logging
import math
import os
import shlex
import shutil
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from timm import utils
from timm.models import safe_model_name

from timm_repaint.engine.checkpoint import REPAINT_KEY, CheckpointParts, SafeSaver
from timm_repaint.engine.fine_tune_phase import CLASSIFICATION_COMMAND, DETECTION_COMMAND
from timm_repaint.engine.folder_lock import RunFolder
from timm_repaint.errors import UsageError, one_line
from timm_repaint.files import write_text
from timm_repaint.log import logger
from timm_repaint.options.bases import describe
from timm_repaint.options.roles import Role
from timm_repaint.options.run_file import ARGS, STARTED_FROM, is_detection, read_args
from timm_repaint.weights import read_checkpoint

DEFAULT_OUTPUT = './output/train'
GALLERY = 'repaint/gallery'
# Of a run that goes on.
FREE_TO_CHANGE = Role.MACHINE.names | Role.OUTPUT.names | Role.START.names | {'no_resume_opt', 'validation_batch_size'}
FREE_TO_CHANGE = FREE_TO_CHANGE - {'seed', 'eval_metric'} | {'data', 'data_dir', STARTED_FROM}
Metrics = OrderedDict[str, float]


def experiment_dir(args: Namespace) -> str | None:
    """The folder of a named experiment; None where the name comes from the time of the start."""
    return os.path.join(args.output or DEFAULT_OUTPUT, args.experiment) if args.experiment else None


def resume_path(args: Namespace) -> str:
    """The checkpoint to resume from: '' for none. `--resume auto` looks for the experiment's own last checkpoint.

    Raises:
        UsageError: for `--resume auto` without `--experiment`; if a named checkpoint is missing; if the run would go on
            with originals alone in the folder of its repaint phase.
    """
    folder, path = experiment_dir(args), args.resume
    if path == 'auto':
        if folder is None:
            raise UsageError('--resume auto needs --experiment NAME, to find the folder of the run it goes on with')
        path = os.path.join(folder, 'last.pth.tar')
        if not os.path.isfile(path):
            logger.info('--resume auto: no checkpoint in %s, starting from scratch.', folder)
            return ''
    if path and not os.path.isfile(path):
        raise UsageError(f'--resume {path}: there is no such checkpoint')
    content = read_checkpoint(path) if path and not args.repaint and is_in(path, folder) else {}
    if isinstance(content, Mapping) and REPAINT_KEY in content:
        command = DETECTION_COMMAND if is_detection(vars(args)) else CLASSIFICATION_COMMAND
        raise UsageError(
            f'{folder} is a run with --repaint, which is not given here: give it, or fine-tune that run with '
            f'{command} {shlex.quote(str(folder))}'
        )
    return path


def is_in(checkpoint: str, folder: str | None) -> bool:
    """Whether a checkpoint lies in a run's folder itself."""
    return folder is not None and os.path.realpath(os.path.dirname(checkpoint)) == os.path.realpath(folder)


def tell_changed_options(args_text: str, folder: str) -> None:
    """Name the options of a run that goes on which are others than before, and those that its checkpoint overrules.

    Args:
        args_text: Its `args.yaml`.
        folder: That of the run, with the one of before.
    """
    try:
        before, now = read_args(folder), yaml.safe_load(args_text)
    except UsageError:  # it is written anew
        return
    changed = [name for name in now if name in before and now[name] != before[name] and name not in FREE_TO_CHANGE]
    if changed:
        words = [f'--{name.replace("_", "-")} {describe(now[name])} ({describe(before[name])})' for name in changed]
        logger.warning('The run goes on with other options than before (in brackets): %s.', one_line(', '.join(words)))
    overruled = [f'--{name.replace("_", "-")}' for name in changed if name in Role.OPTIMIZER.names]
    if overruled and not now['no_resume_opt']:
        logger.warning(
            "The optimizer's state in the checkpoint overrules %s; --no-resume-opt starts it afresh.",
            ', '.join(overruled),
        )


@contextmanager
def rewritten(path: str) -> Iterator[str]:
    """A copy of a file, if it is there, to be changed; then it takes the file's place. A kill costs no rows.

    Raises:
        UsageError: if it cannot be written.
    """
    beside = f'{path}.part'
    try:
        if os.path.isfile(path):
            shutil.copyfile(path, beside)
        else:  # of a run that was killed
            Path(beside).unlink(missing_ok=True)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise UsageError(f'cannot write {path}: {error.strerror}') from error
    finally:
        with suppress(OSError):
            os.remove(beside)


def trim_rows(path: str, start_epoch: int) -> None:
    """Drop the rows of a `summary.csv`, if there is one, from an epoch on.

    Raises:
        UsageError: if it is none.
    """
    if not os.path.isfile(path):
        return
    try:
        with rewritten(path) as beside:
            utils.trim_summary(beside, start_epoch)
    except UsageError:
        raise
    except (ValueError, OverflowError, csv.Error) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f'{path} is not the table of a run ({reason}); put it aside, and go on') from error


class RunOutput:
    """The run's folder and what is written to it, on the primary process only.

    Attributes:
        folder: Where the files go; None on other processes.
        saver: timm's checkpoint saver; None on other processes.
    """

    def __init__(self, args: Namespace, img_size: int) -> None:
        self.args = args
        self.folder: str | None = None
        self.saver: utils.CheckpointSaver | None = None
        self.tensorboard: Any = None
        self._run_folder: RunFolder | None = None
        self._args_text = ''
        if utils.is_primary(args):
            stamp = datetime.now().strftime('%Y%m%d-%H%M%S')
            name = args.experiment or '-'.join([stamp, safe_model_name(args.model), str(img_size)])
            self.folder = os.path.join(args.output or DEFAULT_OUTPUT, name)

    def open(
        self,
        parts: CheckpointParts,
        optimizer: torch.optim.Optimizer,
        loss_scaler: utils.NativeScaler | None,
        decreasing_metric: bool,
        checkpoint: str,
    ) -> None:
        """Make the folder and the checkpoint saver, or go on with them.

        Args:
            parts: What a checkpoint holds.
            optimizer: T's.
            loss_scaler: T's.
            decreasing_metric: Whether the best epoch is that with the lowest metric.
            checkpoint: What the run goes on from; where it begins, the files of another run are put aside.

        Raises:
            UsageError: if another run goes on in the folder, or it cannot be written.
        """
        if self.folder is None:
            return
        self._run_folder = RunFolder(self.folder)
        self._run_folder.take()
        if not checkpoint or not is_in(checkpoint, self.folder):
            self._run_folder.set_aside()
        self.saver = SafeSaver(
            model=parts.task.get_trainable_module(),
            optimizer=optimizer,
            args=self.args,
            amp_scaler=loss_scaler,
            checkpoint_dir=self.folder,
            recovery_dir=self.folder,
            decreasing=decreasing_metric,
            max_history=self.args.checkpoint_hist,
            task=parts,
            ready=self.keep_folder,
        )
        if self.args.resume == 'auto' and checkpoint:
            self.saver.load_state_dict_from_checkpoint(checkpoint)

    def begin(self, args_text: str, start_epoch: int) -> None:
        """Write `args.yaml`, drop what the run writes anew, and start the loggers that the options ask for.

        Args:
            args_text: For `args.yaml`.
            start_epoch: The first epoch that it trains.
        """
        if self.folder is None:
            return
        trim_rows(os.path.join(self.folder, 'summary.csv'), start_epoch)
        self._args_text = args_text
        logging.getLogger(utils.CheckpointSaver.__module__).setLevel(logging.WARNING)  # all its files at each epoch
        write_text(os.path.join(self.folder, ARGS), args_text)
        if self.args.log_wandb:
            import_module('wandb').init(
                project=self.args.wandb_project,
                name=os.path.basename(self.folder),
                config=vars(self.args),
                tags=self.args.wandb_tags,
                resume='must' if self.args.wandb_resume_id else None,
                id=self.args.wandb_resume_id or None,
            )
        if self.args.log_tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.tensorboard = SummaryWriter(os.path.join(self.folder, 'tensorboard'))

    def keep_folder(self) -> None:
        """Make the folder anew if somebody has removed it."""
        if self._run_folder is None or self._run_folder.keep():
            return
        write_text(os.path.join(self._run_folder.folder, ARGS), self._args_text)
        if isinstance(self.saver, SafeSaver):
            self.saver.forget_missing()

    def release(self) -> None:
        """Let other runs have the folder."""
        if self._run_folder is not None:
            self._run_folder.release()

    def write_summary(self, epoch: int, train_metrics: Metrics, eval_metrics: Metrics | None, lr: float) -> None:
        if self.folder is None:
            return
        self.keep_folder()
        path = os.path.join(self.folder, 'summary.csv')
        of_t = {name: value for name, value in train_metrics.items() if name == 'loss' or not self.args.repaint}
        of_repaint = {f'repaint/{name}': train_metrics[name] for name in train_metrics if name not in of_t}
        if self.args.log_wandb and of_repaint:
            import_module('wandb').log(of_repaint, commit=False)  # with what update_summary sends
        with rewritten(path) as beside:
            utils.update_summary(
                epoch, train_metrics, eval_metrics, filename=beside, lr=lr, log_wandb=self.args.log_wandb
            )
        if self.tensorboard is not None:
            scalars = {**{f'train/{name}': value for name, value in of_t.items()}, **of_repaint, 'lr': lr}
            scalars |= {f'eval/{name}': value for name, value in (eval_metrics or {}).items()}
            for name, value in scalars.items():
                if math.isfinite(value):  # the leak probe runs at intervals
                    self.tensorboard.add_scalar(name, value, epoch)
            self.tensorboard.flush()

    def show_gallery(self, path: str, epoch: int) -> None:
        """Send a gallery's PNG to TensorBoard and W&B, where the options ask for them."""
        if self.tensorboard is not None:
            with Image.open(path) as picture:
                self.tensorboard.add_image(GALLERY, np.asarray(picture), epoch, dataformats='HWC')
        if self.args.log_wandb:
            wandb = import_module('wandb')
            wandb.log({GALLERY: wandb.Image(path)}, commit=False)  # with the epoch's figures

    def close(self, results: list[dict[str, Any]], metric: str, as_timm: bool) -> None:
        """Print the ten best of these epochs as JSON, behind the line `--result`, as timm does.

        Args:
            results: Of each epoch.
            metric: By which they are ranked.
            as_timm: Whether the best one of the run has timm's line in the log.
        """
        if self.saver is None:
            return
        worst = math.inf if metric == 'loss' else -math.inf

        def rank(result: dict[str, Any]) -> float:
            value = float(result.get('validation', result['train']).get(metric, 0))
            return worst if math.isnan(value) else value

        ranked = sorted(results, key=rank, reverse=metric == 'loss')
        text = json.dumps(known_values(ranked[-10:]), indent=4)
        if as_timm and self.saver.best_metric is not None:
            logger.info('*** Best metric: %s (epoch %s)', self.saver.best_metric, self.saver.best_epoch)
        print(f'--result\n{text}', flush=True)
        if self.tensorboard is not None:
            self.tensorboard.close()


def known_values(tree: Any) -> Any:
    """Lists and dictionaries for JSON, which has no nan or infinity: None instead."""
    return json.loads(json.dumps(tree), parse_constant=lambda name: None)
