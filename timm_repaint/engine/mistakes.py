"""What a run can know ahead of its work, and what torch's and timm's errors mean where a user can mend them."""

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import torch

from timm_repaint.errors import UsageError, one_line

RANKS = ('RANK', 'PMI_RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
RENDEZVOUS = ('MASTER_ADDR', 'MASTER_PORT')
# Of torch's and timm's messages: part, advice.
NO_MEMORY = 'there is not enough: give a smaller --batch-size (with --grad-accum-steps), --amp or --grad-checkpointing'
LOST = 'another process of the run has ended or cannot be reached: its own lines say why; --resume auto goes on from '
LOST += 'the last checkpoint'
KNOWN = {
    'Expected more than 1 value per channel when training': 'batch norm needs more than one value a channel: give a '
    '--batch-size of 2 or more, or larger images (with --repaint, --repaint-mix both doubles a batch)',
    'DataLoader worker (pid': 'a process that loads images was killed or died, as a machine out of memory does: give '
    'fewer --workers, or more (shared) memory; --resume auto goes on from the last checkpoint',
    'out of memory': NO_MEMORY,
    **dict.fromkeys(('Connection closed by peer', 'Connection reset by peer', 'NCCL communicator was aborted'), LOST),
    'No space left on device': 'no room on the disk, or in shared memory: give fewer --workers',
    'Too many open files': 'the system allows too few open files: give fewer --workers, or raise ulimit -n',
}


def check_start(args: Namespace, folder: str) -> None:
    """Refuse what would end the run only after its networks and data are there.

    Args:
        args: All options.
        folder: Where the run's folder will be, or a folder that will hold it.
    """
    check_processes()
    if args.log_wandb:
        _require('wandb', '--log-wandb needs Weights & Biases: pip install wandb')
    if args.log_tensorboard:
        _require('torch.utils.tensorboard', '--log-tensorboard needs TensorBoard: pip install tensorboard')
    if args.wandb_resume_id and not args.resume:
        raise UsageError('--wandb-resume-id goes with --resume')
    if next((os.environ[name] for name in RANKS if name in os.environ), '0') == '0':
        check_writable(folder)


def _require(module: str, message: str) -> None:
    try:
        import_module(module)
    except ImportError as error:
        raise UsageError(message) from error


def check_processes() -> None:
    """Refuse an environment that promises several processes and lacks what they need to meet."""
    name = next((name for name in ('WORLD_SIZE', 'SLURM_NTASKS') if name in os.environ), None)
    if name is None:
        return
    try:
        if int(os.environ[name]) <= 1:
            return
    except ValueError:
        raise UsageError(f'{name} in the environment is {os.environ[name]!r}; it has to be a number') from None
    needed = (() if 'SLURM_PROCID' in os.environ else ('RANK', 'WORLD_SIZE')) + RENDEZVOUS
    missing = [one for one in needed if one not in os.environ]
    if missing:
        raise UsageError(
            f'{name}={os.environ.get(name)} in the environment promises several processes, but {", ".join(missing)} '
            f'{"is" if len(missing) == 1 else "are"} not set: start them with srun (see docs/slurm.md) or torchrun; '
            f'for one process: env -u {name} python …'
        )


def check_writable(folder: str) -> None:
    """Refuse a folder that cannot be made or written."""
    above = os.path.abspath(folder)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise UsageError(f'--output: cannot write to {folder}: {above} is no folder')
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f'--output: cannot write to {folder}: no permission in {above}')


@contextmanager
def refused(options: str) -> Iterator[None]:
    """Around a stage before the work: an error of timm's there is about options, and becomes a line.

    Args:
        options: Those that the stage reads, in words.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # timm's factories and the classes behind them have no error in common
        told = one_line(f'{type(error).__name__}: {error}')[:300]
        raise UsageError(f'it does not work with {options}: {told}') from error


@contextmanager
def explained() -> Iterator[None]:
    """Around a run: an error of torch's that a user can mend becomes a line; others go on as they are."""
    try:
        yield
    except UsageError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        advice = next((advice for part, advice in KNOWN.items() if part in str(error)), None)
        if isinstance(error, torch.OutOfMemoryError):
            advice = NO_MEMORY
        if advice is None:
            raise
        raise UsageError(f'{one_line(str(error))[:300].rstrip(".")}: {advice}') from error
