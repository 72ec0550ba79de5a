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
        self.adam = torch.optim.Adam(self.parameters, lr=lr, betas=ADAM_BETAS)
        self.lr = lr
        self.scaler = scaler
        self.max_nonfinite = max_nonfinite
        self.skipped = 0
        self.skipped_in_a_row = 0
        self._finite = True

    def backward(self, loss: Tensor, need_update: bool, distributed: bool = False) -> bool:
        """Add a batch's gradient and, where an update ends, step or skip.

        Returns:
            Whether the batch's loss is finite, in all processes.

        Raises:
            NonFiniteLossError: after `max_nonfinite` skipped updates in a row.
        """
        finite = all_agree(torch.isfinite(loss.detach()), distributed)
        self._finite &= finite
        if self.scaler is not None:
            self._backward_scaled(loss, need_update)
            return finite
        loss.backward()
        if need_update:
            if self._finite and all_agree(torch.isfinite(gradient_norm(self.parameters)), distributed):
                self.adam.step()
                self.skipped_in_a_row = 0
            else:
                self._skip()
            self._restart()
        return finite

    def _backward_scaled(self, loss: Tensor, need_update: bool) -> None:
        """float16: gradients that overflow are the scaler's business; here only the loss has to be finite."""
        assert self.scaler is not None
        self.scaler(loss, self.adam, need_update=need_update and self._finite)
        if not need_update:
            return
        if self._finite and self.scaler._scaler.get_scale() >= MIN_SCALE:
            self.skipped_in_a_row = 0
        else:
            self._skip()
        self._restart()

    def _restart(self) -> None:
        self.adam.zero_grad()
        self._finite = True

    def _skip(self) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        _logger.warning('The %s loss is not finite: update skipped (%d so far).', self.name, self.skipped)
        if self.skipped_in_a_row >= self.max_nonfinite:
            raise NonFiniteLossError(
                f'the {self.name} loss was not finite in {self.skipped_in_a_row} updates in a row; go on from the last '
                f'checkpoint with a lower --repaint-{self.name[0]}-lr, or with --amp-dtype bfloat16 instead of float16'
            )

    def state_dict(self) -> dict[str, Any]:
        state = {'adam': self.adam.state_dict(), 'skipped': self.skipped, 'skipped_in_a_row': self.skipped_in_a_row}
        if self.scaler is not None:
            state['scaler'] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, with this optimizer's own learning rate."""
        self.adam.load_state_dict(state['adam'])
        for group in self.adam.param_groups:
            group['lr'] = self.lr
        self.skipped, self.skipped_in_a_row = state['skipped'], state['skipped_in_a_row']
        if self.scaler is not None and 'scaler' in state:
            self.scaler.load_state_dict(state['scaler'])


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def all_agree(flag: Tensor, distributed: bool) -> bool:
    """Whether the flag is true in all processes: they skip together or not at all."""
    if distributed:
        flag = flag.float()
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MIN)
    return bool(flag)
