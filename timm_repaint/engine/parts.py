"""What a training run consists of."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.task import TrainingTask
from torch import Tensor

from timm_repaint.engine.loaders import Loaders
from timm_repaint.engine.output import RunOutput
from timm_repaint.engine.setup import Precision
from timm_repaint.engine.task_guard import TaskGuard
from timm_repaint.repaint import Repaint

Erasing = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """Which epochs a run trains: from `start_epoch` to before `stop_epoch`, in a schedule of `num_epochs`."""

    start_epoch: int
    stop_epoch: int
    num_epochs: int
    lr_scheduler: Any


@dataclass(frozen=True)
class Run:
    """Everything that the epochs need, made by the stages in `engine/run.py`."""

    args: Namespace
    device: torch.device
    precision: Precision
    data_config: dict[str, Any]
    loaders: Loaders
    task: TrainingTask
    task_guard: TaskGuard
    optimizer: torch.optim.Optimizer
    output: RunOutput
    plan: Plan
    repaint: Repaint | None
    erasing: Erasing | None
    watch: Any  # looks at the repaints after each epoch: `RepaintWatch`

    @property
    def metric(self) -> str:
        return best_by(self.args, self.loaders)


def best_by(args: Namespace, loaders: Loaders) -> str:
    """The column of `summary.csv` that picks the best epoch."""
    return args.eval_metric if loaders.eval is not None else 'loss'
