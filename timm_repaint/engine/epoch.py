"""What the plain and the repaint epoch share: gradient accumulation, averages, the progress line."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

import torch
import torchvision
from timm import utils
from tqdm import tqdm

from timm_repaint.errors import UsageError
from timm_repaint.files import write_whole
from timm_repaint.log import logger


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
        steps = remainder if remainder and batch_idx >= first_of_remainder else accum_steps
        need_update = last or (batch_idx + 1) % accum_steps == 0
        yield Micro(batch, batch_idx, batch_idx // accum_steps, steps, need_update, last)


class MeanMeter:
    """Weighted mean of scalar tensors, summed on their device: reading it is the only host sync."""

    def __init__(self) -> None:
        self.total: torch.Tensor | float = 0.0
        self.count: torch.Tensor | float = 0.0
        self.latest: torch.Tensor | float = 0.0

    def update(self, value: torch.Tensor, weight: torch.Tensor | float = 1.0) -> None:
        """Add a scalar `value` that stands for `weight` samples."""
        self.latest = value.detach().float()
        one = isinstance(weight, float) and weight == 1
        self.total = self.total + (self.latest if one else self.latest * weight)
        self.count = self.count + weight

    def add(self, total: torch.Tensor, count: int) -> None:
        """Add the sum over `count` samples, which may be none; a scalar."""
        self.total = self.total + total
        self.count = self.count + count

    def mean(self, args: Namespace, device: torch.device) -> float | None:
        """The mean over all samples of all processes; None where there was none."""
        sums = torch.stack([torch.as_tensor(x, dtype=torch.float32, device=device) for x in (self.total, self.count)])
        if args.distributed:
            torch.distributed.all_reduce(sums)
        total, count = sums.tolist()
        return total / count if count else None


class ProgressLog:
    """How far an epoch is: a line every `--log-interval` updates; on a terminal a bar, and a line at its end.

    Args:
        epoch: Counted from 0.
        num_updates: Of the epoch.
        args: All options.
        updates_of_run: From the schedule's start to the run's end, for the time that is left; None: not known.
        stream: Where the bar goes, if it is a terminal.
    """

    def __init__(
        self,
        epoch: int,
        num_updates: int,
        args: Namespace,
        updates_of_run: int | None = None,
        stream: TextIO = sys.stderr,
    ) -> None:
        self.epoch, self.num_updates, self.args = epoch, num_updates, args
        self.epochs_behind = None if updates_of_run is None else updates_of_run // num_updates - epoch - 1
        self.data_s, self.done, self.num_samples = 0.0, 0, 0
        self.start = self.first = self.data_start = self.shown = time.monotonic()
        self.primary = utils.is_primary(args)
        quiet = not (self.primary and stream.isatty())
        self.bar = tqdm(total=num_updates, desc=f'Epoch {epoch}', file=stream, leave=False, disable=quiet)

    def got_batch(self) -> None:
        """A batch is there, up to here the loader was waited for."""
        self.data_s += time.monotonic() - self.data_start

    def ran_batch(self, num_samples: int) -> None:
        self.num_samples += num_samples
        self.data_start = time.monotonic()

    def updated(self) -> None:
        self.done += 1
        self.bar.update()
        if self.done == 1:  # it has the start of the loader's workers in it
            self.first = time.monotonic()

    def due(self, micro: Micro) -> bool:
        return micro.update_idx % self.args.log_interval == 0 or micro.last

    def write(self, micro: Micro, text: str) -> None:
        """Show `text` with the place in the epoch, the speed and the time that is left, on the primary process."""
        now = time.monotonic()
        rate = self.num_samples / max(now - self.shown, 1e-9)
        self.num_samples, self.shown = 0, now
        if not self.primary:
            return
        self.bar.set_postfix_str(f'{text}  {rate:.0f}/s', refresh=False)
        if micro.last:
            self.bar.close()
        elif not self.bar.disable:
            return
        logger.info(
            'Train: %d [%d/%d]  %s  %.0f/s  data: %.0f%%  left: %s',
            self.epoch, micro.update_idx + 1, self.num_updates, text, rate,
            100 * self.data_s / max(now - self.start, 1e-9), self.time_left(now),
        )  # fmt: skip

    def time_left(self, now: float) -> str:
        """Of the epoch and, where its end is known, of the run without its validations; '?' at the first update."""
        if self.done < 2:
            return '?'
        update_s, updates = (now - self.first) / (self.done - 1), self.num_updates - self.done
        left = tqdm.format_interval(update_s * updates)
        if self.epochs_behind is None:
            return left
        return f'{left}, run {tqdm.format_interval(update_s * (updates + self.epochs_behind * self.num_updates))}'


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
        logger.warning('No picture of batch %d: %s', batch_idx, error)


def synchronize(device: torch.device) -> None:
    """Wait for the device (`--synchronize-step`), so that times of updates are exact."""
    if device.type in ('cuda', 'npu', 'xpu'):
        getattr(torch, device.type).synchronize(device)
