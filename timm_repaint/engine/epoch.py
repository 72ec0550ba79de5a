"""What the plain and the repaint epoch share: gradient accumulation, averages, the progress line."""

import argparse
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchvision
from timm import utils

from timm_repaint.errors import UsageError
from timm_repaint.files import write_whole

_logger = logging.getLogger('timm_repaint')


@dataclass(frozen=True)
class Micro:
    """Where one batch stands in its epoch.

    Attributes:
        batch: The batch.
        batch_idx: Its number in the epoch, from 0.
        update_idx: Number of the update that it belongs to; `accum_steps` batches make one update.
        accum_steps: Batches of this update; the last update of an epoch may have fewer.
        need_update: Whether the weights move after it.
        last: Whether it is the epoch's last batch.
    """

    batch: Any
    batch_idx: int
    update_idx: int
    accum_steps: int
    need_update: bool
    last: bool


def updates_per_epoch(num_batches: int, accum_steps: int) -> int:
    return (num_batches + accum_steps - 1) // accum_steps


def accumulate(loader: Iterable, num_batches: int, accum_steps: int) -> Iterator[Micro]:
    """Number the batches of an epoch and say which of them end an update."""
    remainder = num_batches % accum_steps
    first_of_remainder = num_batches - remainder
    for batch_idx, batch in enumerate(loader):
        last = batch_idx == num_batches - 1
        yield Micro(
            batch=batch,
            batch_idx=batch_idx,
            update_idx=batch_idx // accum_steps,
            accum_steps=remainder if remainder and batch_idx >= first_of_remainder else accum_steps,
            need_update=last or (batch_idx + 1) % accum_steps == 0,
            last=last,
        )


class MeanMeter:
    """Weighted mean of scalar tensors, summed on their device: reading it is the only host sync."""

    def __init__(self) -> None:
        self.total: torch.Tensor | float = 0.0
        self.count: torch.Tensor | float = 0.0
        self.latest: torch.Tensor | float = 0.0

    def update(self, value: torch.Tensor, weight: torch.Tensor | float = 1.0) -> None:
        """Add a scalar `value` that stands for `weight` samples."""
        self.latest = value.detach().float()
        self.total = self.total + self.latest * weight
        self.count = self.count + weight

    def add(self, total: torch.Tensor, count: torch.Tensor) -> None:
        """Add the sum over `count` samples, which may be none; scalars."""
        self.total = self.total + total
        self.count = self.count + count

    def mean(self, args: argparse.Namespace, device: torch.device) -> float | None:
        """The mean over all samples of all processes; None where there was none."""
        sums = torch.stack([torch.as_tensor(x, dtype=torch.float32, device=device) for x in (self.total, self.count)])
        if args.distributed:
            torch.distributed.all_reduce(sums)
        total, count = sums.tolist()
        return total / count if count else None


class ProgressLog:
    """Times of updates and data, and a log line every `--log-interval` updates."""

    def __init__(self, epoch: int, num_updates: int, args: argparse.Namespace) -> None:
        self.epoch, self.num_updates, self.args = epoch, num_updates, args
        self.update_time, self.data_time = utils.AverageMeter(), utils.AverageMeter()
        self.num_samples = 0
        self.update_start = self.data_start = time.time()

    def got_batch(self, micro: Micro) -> None:
        self.data_time.update(micro.accum_steps * (time.time() - self.data_start))

    def ran_batch(self, num_samples: int) -> None:
        self.num_samples += num_samples
        self.data_start = time.time()

    def updated(self) -> None:
        now = time.time()
        self.update_time.update(now - self.update_start)
        self.update_start = now

    def due(self, micro: Micro) -> bool:
        return micro.update_idx % self.args.log_interval == 0 or micro.last

    def write(self, micro: Micro, text: str, optimizer: torch.optim.Optimizer) -> None:
        """Log `text` with the place in the epoch, the speed and the learning rate, on the primary process."""
        rate = self.num_samples / max(self.update_time.val, 1e-9)
        if utils.is_primary(self.args):
            _logger.info(
                'Train: %d [%4d/%d (%3.0f%%)]  %s  Time: %.3fs (%.3fs), %.1f/s  LR: %.3e  Data: %.3f (%.3f)',
                self.epoch, micro.update_idx, self.num_updates, 100 * (micro.update_idx + 1) / self.num_updates, text,
                self.update_time.val, self.update_time.avg, rate, mean_lr(optimizer),
                self.data_time.val, self.data_time.avg,
            )  # fmt: skip

    def restart(self) -> None:
        self.num_samples = 0


def mean_lr(optimizer: torch.optim.Optimizer) -> float:
    lrs = [group['lr'] for group in optimizer.param_groups]
    return sum(lrs) / len(lrs)


def save_batch_image(images: torch.Tensor, output_dir: str | None, batch_idx: int) -> None:
    """Write the batch [B, C, H, W] that the network saw (`--save-images`); a full disk does not end the run."""
    if not output_dir:
        return
    path = os.path.join(output_dir, f'train-batch-{batch_idx}.jpg')
    write = partial(torchvision.utils.save_image, images, format='jpeg', padding=0, normalize=True)
    try:
        write_whole(path, write)
    except UsageError as error:
        _logger.warning('No picture of batch %d: %s', batch_idx, error)


def synchronize(device: torch.device) -> None:
    """Wait for the device (`--synchronize-step`), so that times of updates are exact."""
    if device.type in ('cuda', 'npu', 'xpu'):
        getattr(torch, device.type).synchronize()
