"""Means over an epoch of what training reports."""

import math
from argparse import Namespace
from collections import OrderedDict
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from timm_repaint.engine.epoch import MeanMeter
from timm_repaint.judging import StepMetrics
from timm_repaint.repaint import Repaint

REPAINT_NAMES = (*(field.name for field in fields(StepMetrics)), 'hits_repaint', 'hits_original')


class TrainMeters:
    """T's mean loss; in the repaint phase also the losses of D, E and G, and T's hits on repaints and originals.

    Args:
        repaints: Whether there is a repaint phase to report.
    """

    def __init__(self, repaints: bool) -> None:
        self.repaints = repaints
        self.meters = {name: MeanMeter() for name in ('loss', *(REPAINT_NAMES if repaints else ()))}

    def add_task(self, result: dict[str, Any], num_samples: int, target: Tensor, repaint: Repaint | None) -> None:
        """Add T's loss and, behind a repaint, its hits.

        Args:
            result: Of the task: 'loss', 'output'.
            num_samples: Images of the loader's batch.
            target: What T was asked for, before images were mixed; [B] for classes.
            repaint: Knows which of T's images are repaints.
        """
        self.meters['loss'].update(result['loss'], num_samples)
        output = result.get('output')
        # Distillation heads and detectors have other outputs than logits [B, K] for classes [B].
        if repaint is not None and isinstance(output, Tensor) and output.ndim == 2 and target.ndim == 1:
            right = 100 * (output.detach().argmax(dim=1) == target)  # [B]
            for name, rows in zip(('hits_repaint', 'hits_original'), repaint.rows, strict=True):
                self.meters[name].add(right[rows].sum(), len(right[rows]))

    def add_step(self, metrics: StepMetrics) -> None:
        """Add the losses of D, E and G."""
        for name, value in metrics.as_dict().items():
            self.meters[name].update(value)

    def means(self, args: Namespace, device: torch.device) -> OrderedDict[str, float]:
        """By name; nan where there was none."""
        means = self._measured(args, device)
        return OrderedDict((name, math.nan if mean is None else mean) for name, mean in means.items())

    def _measured(self, args: Namespace, device: torch.device) -> dict[str, float | None]:
        return {name: meter.mean(args, device) for name, meter in self.meters.items()}

    def text(self, args: Namespace, device: torch.device) -> str:
        """For the log line."""
        means = self._measured(args, device)
        if not self.repaints:
            return f'loss: {float(self.meters["loss"].latest):#.3g} ({means["loss"]:#.3g})'
        hits = {name: means[f'hits_{name}'] for name in ('repaint', 'original')}
        known = ', '.join(f'{share:.0f}% {name}' for name, share in hits.items() if share is not None)
        parts = {'loss': None if means['loss'] is None else f'{means["loss"]:#.3g}', 'hits': known}
        return '  '.join(f'{name}: {value}' for name, value in parts.items() if value)
