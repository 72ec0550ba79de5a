"""The optimizer of E+G or of D: Adam that skips an update whose loss or gradient is not finite, and counts it."""

import torch
from torch import Tensor, nn

from timm_repaint.gather import is_distributed
from timm_repaint.guard import Guard
from timm_repaint.precision import is_finite

# A float16 scale below this has been halved at every update: the gradients are never finite.
MIN_SCALE = 1.0
ADAM_BETAS = (0.0, 0.999)  # Repaint section 4.2


class GanOptimizer:
    """Fused Adam with its own gradients, gradient scaler and guard; the host never waits for the device.

    Gradients are not kept at the parameters: between calls these have no `.grad`, so nobody else's optimizer, clipping
    or gradient average sees them.

    Args:
        name: 'generator' or 'discriminator', for messages.
        module: Whose parameters it moves.
        lr: Learning rate, constant (Repaint section 4.2).
        max_nonfinite: After so many skipped updates in a row the training stops.
    """

    def __init__(self, name: str, module: nn.Module, lr: float, max_nonfinite: int = 20) -> None:
        self.parameters = list(module.parameters())
        self.adam = torch.optim.Adam(self.parameters, lr=lr, betas=ADAM_BETAS, fused=True)
        for parameter in self.parameters:  # there from the start, so that a state has the same form at any time
            self.adam.state[parameter] = {
                'step': torch.zeros((), dtype=torch.float32, device=parameter.device),
                'exp_avg': torch.zeros_like(parameter),
                'exp_avg_sq': torch.zeros_like(parameter),
            }
        advice = f'try a lower {name[0]}_lr (--repaint-{name[0]}-lr), or bfloat16 instead of float16'
        advice += ', and go on from the last checkpoint'
        self.guard = Guard(name, f'{name} loss', advice, max_nonfinite)
        self.scaler: torch.amp.GradScaler | None = None  # from the first float16 loss on
        self._gradients: list[Tensor | None]  # sums over the update's batches so far
        self._bad_loss: Tensor | None
        self._batches: int
        self.drop()

    def add(self, loss: Tensor, *, float16: bool = False, retain_graph: bool = False) -> None:
        """Add a batch's gradient to the update; the parameters must require gradients.

        Args:
            loss: Scalar, not scaled.
            float16: Whether its graph is in float16: it is then multiplied by a scaler of its own.
            retain_graph: Whether the graph is needed once more.
        """
        if float16 and self.scaler is None:
            self.scaler = torch.amp.GradScaler(loss.device.type)
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        self._give(self._gradients)
        try:
            scaled.backward(inputs=self.parameters, retain_graph=retain_graph)
            self._gradients = [parameter.grad for parameter in self.parameters]
        finally:  # out of memory, say: the loop may go on
            self._give([None] * len(self.parameters))
        bad = ~is_finite(loss.detach())  # its gradients may be finite all the same
        self._bad_loss = bad if self._bad_loss is None else self._bad_loss | bad
        self._batches += 1

    def drop(self) -> None:
        """Forget the gradients of the update so far."""
        self._gradients, self._bad_loss, self._batches = [None] * len(self.parameters), None, 0

    def _give(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    def update(self, excused: Tensor | None = None) -> Tensor | None:
        """Step with the mean over the update's batches and over all processes, or skip if it is not finite.

        Args:
            excused: Whether the update is to be skipped for another network's fault (a bool scalar), and not counted.

        Returns:
            Whether it is `excused` in any process, a bool scalar; None where that was not asked.

        Raises:
            NonFiniteLossError: after too many skipped updates in a row.
        """
        if self._bad_loss is None:  # nobody has learned
            return None
        pairs = zip(self._gradients, self.parameters, strict=True)
        gradients = [torch.zeros_like(parameter) if given is None else given for given, parameter in pairs]
        flags = [self._bad_loss] if excused is None else [self._bad_loss, excused]
        bad_loss, *others = average(gradients, flags, self._batches)
        overflow = ~is_finite(torch.stack(torch._foreach_norm(gradients))).all()
        self.drop()
        self._give(list(gradients))
        if self.scaler is not None:
            scale = self.scaler.scale(torch.ones_like(overflow, dtype=torch.float32))
            self.scaler.unscale_(self.adam)
        bad = bad_loss | overflow
        self.adam.found_inf = (bad | others[0] if others else bad).float()  # type: ignore[attr-defined]
        self.adam.step()
        if self.scaler is not None:
            self.scaler.update()
            bad = bad_loss | (overflow & (scale <= MIN_SCALE))  # above, an overflow is the scaler's business
        self._give([None] * len(gradients))
        self.guard.count(bad & ~others[0] if others else bad)
        return others[0] if others else None

    @property
    def scaler_numbers(self) -> tuple[float, int]:
        """Scale and growth counter of the gradient scaler; 0 where there is none. Reading them waits for the device."""
        if self.scaler is None:
            return 0.0, 0
        state = self.scaler.state_dict()
        return state['scale'], state['_growth_tracker']

    def set_scaler(self, scale: float, growth: int) -> None:
        """Go on with a gradient scaler as it was; a scale of 0 is none."""
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type) if scale > 0 else None
        if self.scaler is not None:
            self.scaler.load_state_dict({**self.scaler.state_dict(), 'scale': scale, '_growth_tracker': growth})

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that the state consists of, in order: step and moments of every parameter."""
        return [self.adam.state[p][key] for p in self.parameters for key in ('step', 'exp_avg', 'exp_avg_sq')]

    @torch.no_grad()
    def follow_parameters(self) -> None:
        """Bring the moments to the parameters' device, number format and layout, after these have moved."""
        for parameter in self.parameters:
            state = self.adam.state[parameter]
            state['step'] = state['step'].to(parameter.device)
            for key in ('exp_avg', 'exp_avg_sq'):
                state[key] = torch.empty_like(parameter).copy_(state[key])  # its layout in memory too
        self.guard.to(self.parameters[0].device)


def average(gradients: list[Tensor], flags: list[Tensor], batches: int) -> list[Tensor]:
    """Turn sums over the batches of an update into means over batches and processes, in one all-reduce.

    Args:
        gradients: Sums over the batches; changed in place.
        flags: Bool scalars.
        batches: Their number, the same in all processes.

    Returns:
        The flags: whether each is True in any process.
    """
    if not is_distributed():
        if batches > 1:
            torch._foreach_div_(gradients, batches)
        return flags
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.stack(flags).to(gradients[0])])
    torch.distributed.all_reduce(flat)
    *parts, anywhere = flat.split([*(gradient.numel() for gradient in gradients), len(flags)])
    torch._foreach_div_(parts, batches * torch.distributed.get_world_size())
    torch._foreach_copy_(gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)])
    return list((anywhere > 0).unbind())
