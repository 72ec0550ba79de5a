"""Updates whose loss or gradient is not finite: counted on the device, read by the host without waiting."""

from typing import Any

import torch
from torch import Tensor

from timm_repaint.errors import UsageError
from timm_repaint.gather import is_distributed
from timm_repaint.log import logger


class NonFiniteLossError(UsageError):
    """Too many updates in a row had a loss or gradient that is not finite."""


class LateValue:
    """A small tensor that is computed on a device and read by the host once it has arrived, without waiting."""

    def __init__(self) -> None:
        self._host: Tensor | None = None
        self._arrival: Any = None
        self.on_its_way = False

    def send(self, value: Tensor) -> None:
        """Start the copy of a tensor; the one before is forgotten."""
        if self._host is None:
            self._host = torch.zeros(value.shape, dtype=value.dtype, device='cpu', pin_memory=value.is_cuda)
        self._host.copy_(value, non_blocking=True)
        if value.device.type != 'cpu':
            self._arrival = torch.Event(value.device)
            self._arrival.record(torch.accelerator.current_stream(value.device))
        self.on_its_way = True

    def __getstate__(self) -> dict[str, Any]:
        return {'_host': None, '_arrival': None, 'on_its_way': False}  # events have no copies

    def read(self) -> list[int] | None:
        """The latest tensor as a list; None if there is none, or it is still on its way.

        Several processes wait for it, so that all of them learn of it at the same update.
        """
        if not self.on_its_way or self._host is None:
            return None
        if self._arrival is not None and is_distributed():
            self._arrival.synchronize()
        elif self._arrival is not None and not self._arrival.query():
            return None
        self.on_its_way = False
        values: list[int] = self._host.numpy().tolist()
        return values


class Guard:
    """Counts the updates of one network that are not finite, and ends the training after too many in a row.

    Args:
        name: Whose updates: 'generator', 'discriminator' or 'task'.
        what: That which is not finite, for messages.
        advice: What helps, for the error.
        max_nonfinite: After so many in a row `count` raises.
        counted: What is counted: 'updates', which are skipped, or 'batches', of which nothing is.
    """

    def __init__(self, name: str, what: str, advice: str, max_nonfinite: int, counted: str = 'updates') -> None:
        self.name = name
        self.what = what
        self.advice = advice
        self.max_nonfinite = max_nonfinite
        self.counted = counted
        self.counts = torch.zeros(2, dtype=torch.int64)  # skipped in all, and since the last update that was made
        self._kept = torch.tensor([1, 0])  # of the counts after one that is finite
        self._late = LateValue()
        self._told = 0

    def to(self, device: torch.device) -> None:
        """Move the counters to the device of the flags."""
        self.counts, self._kept = self.counts.to(device), self._kept.to(device)

    def restored(self) -> None:
        """After the counters were loaded: what they have counted is told already."""
        self._told = self.skipped

    def count(self, bad: Tensor) -> None:
        """Count an update, or a batch.

        Args:
            bad: Whether it is not finite, a bool scalar on the counters' device.

        Raises:
            NonFiniteLossError: after `max_nonfinite` in a row; the host learns of it an update or more later.
        """
        self._look()
        self.counts = torch.where(bad, self.counts + 1, self.counts * self._kept)
        if not self._late.on_its_way:
            self._late.send(self.counts)

    def _look(self) -> None:
        counts = self._late.read()
        if counts is None:
            return
        skipped, in_a_row = counts
        if skipped > self._told:
            done = 'update skipped (%d so far)' if self.counted == 'updates' else '%d batches so far'
            logger.warning(f'The %s is not finite: {done}.', self.what, skipped)
        self._told = skipped
        if in_a_row >= self.max_nonfinite:
            raise NonFiniteLossError(
                f'the {self.what} was not finite in {in_a_row} {self.counted} in a row; {self.advice}'
            )

    @property
    def skipped(self) -> int:
        """Updates that were skipped so far; reading it waits for the device."""
        return int(self.counts[0])
