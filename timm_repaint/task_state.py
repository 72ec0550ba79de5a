"""What a task around another task passes on, and the state of E, G and D in a checkpoint."""

import argparse
import pickle
from typing import Any

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from timm_repaint.errors import UsageError
from timm_repaint.gan_optimizer import GanOptimizer
from timm_repaint.painters import AnyRepainter, create_repainter

# E, G, D and their optimizers in a checkpoint's `task_state`, beside what T's own task keeps there.
REPAINT_KEY = 'repaint'


class WrappingTask(TrainingTask):
    """Holds T's own task and the GAN; everything that timm asks of a task about T is T's own task's answer.

    So a checkpoint's `state_dict` is plain T, which timm's `validate.py` and `create_model(checkpoint_path=…)` read.

    Attributes:
        optimizers: 'generator' (E+G) and 'discriminator'; empty when the repainter is frozen.
        resume_optimizers: Whether a checkpoint's optimizer states are taken (`--no-resume-opt`).
    """

    def __init__(self, task: TrainingTask, repainter: AnyRepainter, discriminator: nn.Module | None) -> None:
        super().__init__(device=task.device, dtype=task.dtype, verbose=task.verbose)
        self.task = task
        self.repainter: nn.Module = repainter
        self.discriminator = discriminator
        self.optimizers: dict[str, GanOptimizer] = {}
        self.resume_optimizers = True

    def get_trainable_module(self, ema: bool = False) -> nn.Module | None:
        return self.task.get_trainable_module(ema=ema)

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        return self.task.get_eval_model(module, ema=ema)

    def get_clip_parameters(self, exclude_head: bool = False) -> Any:
        return self.task.get_clip_parameters(exclude_head=exclude_head)

    def setup_ema(self, *args: Any, **kwargs: Any) -> nn.Module:
        return self.task.setup_ema(*args, **kwargs)

    def compile_ema(self, *args: Any, **kwargs: Any) -> nn.Module | None:
        return self.task.compile_ema(*args, **kwargs)

    def no_sync(self) -> Any:
        return self.task.no_sync()

    def compile(self, *args: Any, **kwargs: Any) -> nn.Module | None:  # type: ignore[override]
        """Compile T, E+G and D one by one."""
        compiled = self.task.compile(*args, **kwargs)
        self.repainter.compile(*args, **kwargs)
        if self.discriminator is not None:
            self.discriminator.compile(*args, **kwargs)
        return compiled

    def prepare_distributed(self, device_ids: list | None = None, **ddp_kwargs: Any) -> 'WrappingTask':
        """Wrap T, E+G and D one by one: in each update some of them get no gradient.

        On GPUs the batch norms of SPADE are synchronised, as the paper's are (section 3.1). On CPUs, which cannot, the
        first process's running statistics count.
        """
        self.task.prepare_distributed(device_ids=device_ids, **ddp_kwargs)
        if self.discriminator is None:  # frozen: nothing to synchronise
            return self
        if device_ids:
            self.repainter = nn.SyncBatchNorm.convert_sync_batchnorm(self.repainter)
        self.repainter = DistributedDataParallel(self.repainter, device_ids=device_ids)
        self.discriminator = DistributedDataParallel(self.discriminator, device_ids=device_ids)
        return self

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """E, G, D and their optimizers, and the state of T's own task, as tensors and plain values."""
        inner = self.task.get_task_state(module, ema=ema)
        if ema:
            return inner
        repainter = unwrap_model(self.repainter)
        state = {
            'repainter': {'config': repainter.config, 'state_dict': repainter.state_dict()},
            'optimizers': {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        if self.discriminator is not None:
            state['discriminator'] = unwrap_model(self.discriminator).state_dict()
        return {**inner, REPAINT_KEY: state}

    def load_task_state(
        self, state: dict[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Take E, G, D and their optimizers from a checkpoint.

        Raises:
            UsageError: if the checkpoint has no generator, or one of another shape.
        """
        if ema:
            self.task.load_task_state(state, strict, module, ema)
            return
        if not state or REPAINT_KEY not in state:
            raise UsageError(
                'the checkpoint is of a run without --repaint: start from its classifier with --initial-checkpoint'
            )
        self.task.load_task_state(state, strict)
        state = state[REPAINT_KEY]
        load_repainter_state(unwrap_model(self.repainter), state['repainter'])
        if self.discriminator is not None and 'discriminator' in state:
            unwrap_model(self.discriminator).load_state_dict(state['discriminator'])
        for name, optimizer in self.optimizers.items():
            if self.resume_optimizers and name in state['optimizers']:
                optimizer.load_state_dict(state['optimizers'][name])


def load_repainter_state(repainter: AnyRepainter, state: dict[str, Any]) -> None:
    """Load E and G, after a look at whether the networks are the same.

    Raises:
        UsageError: naming the settings that differ.
    """
    ours, theirs = repainter.config, state['config']
    differ = [f'{key} is {theirs.get(key)}, here {ours[key]}' for key in ours if theirs.get(key) != ours[key]]
    if differ:
        raise UsageError(f'the generator in the checkpoint is another one: {"; ".join(differ)}')
    repainter.load_state_dict(state['state_dict'])


def unreadable(path: str, error: Exception) -> UsageError:
    """What to say of a file that torch cannot read as a checkpoint, or will not because it holds pickled objects."""
    if isinstance(error, RuntimeError):
        return UsageError(f'{path} is not a checkpoint: {str(error).splitlines()[0]}')
    return UsageError(
        f'{path} is not a checkpoint of tensors and plain values; nothing else is loaded, because it could run code'
    )


def load_repainter(path: str) -> AnyRepainter:
    """E and G of a `train.py --repaint` run, from its checkpoint (tensors and plain values only, no pickle).

    Raises:
        UsageError: if there is no such file.
        UsageError: if the file is of a run without `--repaint`.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise unreadable(path, error) from error
    state = (checkpoint.get('task_state') or {}).get(REPAINT_KEY)
    if state is None:
        raise UsageError(f'{path} has no generator: it is not a checkpoint of train.py --repaint')
    repainter = create_repainter(state['repainter']['config'])
    repainter.load_state_dict(state['repainter']['state_dict'])
    return repainter
