"""The optimizer of E+G or of D: Adam that skips an update whose loss or gradient is not finite, and counts it."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from timm.utils import NativeScaler
from torch import Tensor, nn

from timm_repaint.errors import UsageError

_logger = logging.getLogger('train')
# A float16 scale below this has been halved at every update: the gradients are never finite.
MIN_SCALE = 1.0
ADAM_BETAS = (0.0, 0.999)  # Repaint section 4.2


class NonFiniteLossError(UsageError):
    """Too many updates in a row had a loss or gradient that is not finite."""


class GanOptimizer:
    """Adam with a gradient scaler of its own and a guard (DESIGN: GAN safety).

    Args:
        name: 'generator' or 'discriminator', for messages.
        parameters: What it moves.
        lr: Learning rate, constant (Repaint section 4.2).
        scaler: Gradient scaler under float16 AMP, else None.
        max_nonfinite: After so many skipped updates in a row the run stops.
    """

    def __init__(
        self,
        name: str,
        parameters: Iterable[nn.Parameter],
        lr: float,
        scaler: NativeScaler | None = None,
        max_nonfinite: int = 20,
    ) -> None:
        self.name = name
        self.parameters = list(parameters)
        # Off the CPU the host does not wait for the flag: the fused step reads it where it is.
        self.reads_late = self.parameters[0].device.type != 'cpu' and scaler is None
        self.adam = torch.optim.Adam(self.parameters, lr=lr, betas=ADAM_BETAS, fused=self.reads_late)
        self.lr = lr
        self.scaler = scaler
        self.max_nonfinite = max_nonfinite
        self._skipped = 0
        self._skipped_in_a_row = 0
        self._finite: Tensor | None = None  # of the update's batches so far
        self._unread: Tensor | None = None  # whether the latest update was made

    def backward(self, loss: Tensor, need_update: bool, distributed: bool = False) -> Tensor:
        """Add a batch's gradient and, where an update ends, step or skip.

        Returns:
            Whether the batch's loss is finite, in all processes: a flag on its device.

        Raises:
            NonFiniteLossError: after `max_nonfinite` skipped updates in a row; off the CPU one update later.
        """
        finite = all_agree(torch.isfinite(loss.detach()), distributed)
        self._finite = finite if self._finite is None else self._finite & finite
        if self.scaler is not None:
            self._backward_scaled(loss, need_update)
            return finite
        loss.backward()
        if need_update:
            self._step(self._finite & all_agree(torch.isfinite(gradient_norm(self.parameters)), distributed))
            self._restart()
        return finite

    def _step(self, finite: Tensor) -> None:
        """Move the weights if the flag is true."""
        if self.reads_late:
            self._count()  # the update before: its flag is there, this one's is not
            self.adam.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.adam.step()
            self._unread = finite
            return
        if finite:
            self.adam.step()
        self._unread = finite
        self._count()

    def _count(self) -> None:
        """Read the latest update's flag, if nobody has."""
        if self._unread is None:
            return
        finite, self._unread = bool(self._unread), None
        if finite:
            self._skipped_in_a_row = 0
        else:
            self._skip()

    @property
    def skipped(self) -> int:
        """Updates that were skipped so far; reading it waits for the device."""
        self._count()
        return self._skipped

    @property
    def skipped_in_a_row(self) -> int:
        """The same since the last update that was made."""
        self._count()
        return self._skipped_in_a_row

    def _backward_scaled(self, loss: Tensor, need_update: bool) -> None:
        """float16: gradients that overflow are the scaler's business; here only the loss has to be finite."""
        assert self.scaler is not None and self._finite is not None
        finite = bool(self._finite)
        self.scaler(loss, self.adam, need_update=need_update and finite)
        if not need_update:
            return
        self._unread = self._finite & (self.scaler._scaler.get_scale() >= MIN_SCALE)
        self._count()
        self._restart()

    def _restart(self) -> None:
        self.adam.zero_grad()
        self._finite = None

    def _skip(self) -> None:
        self._skipped += 1
        self._skipped_in_a_row += 1
        _logger.warning('The %s loss is not finite: update skipped (%d so far).', self.name, self._skipped)
        if self._skipped_in_a_row >= self.max_nonfinite:
            raise NonFiniteLossError(
                f'the {self.name} loss was not finite in {self._skipped_in_a_row} updates in a row; go on from the '
                f'last checkpoint with a lower --repaint-{self.name[0]}-lr, or with --amp-dtype bfloat16 instead of '
                'float16'
            )

    def state_dict(self) -> dict[str, Any]:
        state = {'adam': self.adam.state_dict(), 'skipped': self.skipped, 'skipped_in_a_row': self.skipped_in_a_row}
        if self.scaler is not None:
            state['scaler'] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, with this optimizer's own learning rate."""
        own = {'lr': self.lr, 'fused': self.reads_late}  # it may come from a run on another device
        groups = [{**group, **own} for group in state['adam']['param_groups']]
        self.adam.load_state_dict({**state['adam'], 'param_groups': groups})
        self._skipped, self._skipped_in_a_row = state['skipped'], state['skipped_in_a_row']
        self._unread = None
        if self.scaler is not None and 'scaler' in state:
            self.scaler.load_state_dict(state['scaler'])


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def all_agree(flag: Tensor, distributed: bool) -> Tensor:
    """Whether the flag is true in all processes, a bool on its device: they skip together or not at all."""
    if not distributed:
        return flag
    everywhere = flag.float()
    torch.distributed.all_reduce(everywhere, op=torch.distributed.ReduceOp.MIN)
    return everywhere.bool()
