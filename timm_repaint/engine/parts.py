"""What a training run consists of."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.task import TrainingTask
from torch import Tensor

from timm_repaint.engine.data import Loaders
from timm_repaint.engine.output import RunOutput
from timm_repaint.engine.setup import Precision
from timm_repaint.repaint import Repaint

Erasing = Callable[[Tensor], Tensor]


@dataclass
class Run:
    """Everything that the epochs need, made by the stages in `engine/run.py`."""

    args: argparse.Namespace
    device: torch.device
    precision: Precision
    data_config: dict[str, Any]
    loaders: Loaders
    task: TrainingTask
    optimizer: torch.optim.Optimizer
    lr_scheduler: Any
    output: RunOutput
    start_epoch: int
    stop_epoch: int
    num_epochs: int
    repaint: Repaint | None = None
    erasing: Erasing | None = None
    exact_resume: bool = False
    watch: Any = None  # looks at the repaints after each epoch: `RepaintWatch`

    @property
    def metric(self) -> str:
        return self.args.eval_metric if self.loaders.eval is not None else 'loss'

    @property
    def decreasing_metric(self) -> bool:
        return self.metric == 'loss'
