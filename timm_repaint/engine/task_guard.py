"""T, whose updates nobody skips: the training ends when its loss is never finite, or its weights are not."""

from functools import partial
from typing import Any

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import Tensor, nn

from timm_repaint.gather import is_distributed
from timm_repaint.guard import Guard, NonFiniteLossError

ADVICE = 'go on from the last checkpoint, which is from before, with --no-resume-opt and a lower --lr'
STATISTICS = ('running_mean', 'running_var')


class TaskGuard:
    """Looks at T's loss in each batch, without waiting for the device, and at its weights where they are saved.

    Args:
        task: T; gets a hook, so any loop over it is guarded.
        max_nonfinite: After so many batches in a row whose loss is not finite the training ends.
        device: T's.
    """

    def __init__(self, task: TrainingTask, max_nonfinite: int, device: torch.device) -> None:
        self.task = task
        guard = Guard('task', "task network's loss", ADVICE, max_nonfinite, counted='batches')
        guard.to(device)
        self._at_start = self._nonfinite()
        task.register_forward_hook(partial(count_batch, guard))

    def check(self) -> None:
        """Look at weights, running statistics and their average; waits for the device.

        Raises:
            NonFiniteLossError: naming one that is not finite, and was at the start.
        """
        spoilt = self._nonfinite() - self._at_start
        if spoilt:
            raise NonFiniteLossError(
                f'the weights of the task network are not finite any more ({len(spoilt)} tensors, {min(spoilt)} is '
                f'one); nothing of them is saved, {ADVICE}'
            )

    @torch.no_grad()
    def _nonfinite(self) -> set[str]:
        models = [self.task.get_eval_model(), self.task.get_eval_model(ema=True)]
        tensors = {
            f'{name} of the average' if ema else name: tensor
            for ema, model in enumerate(models)
            if model is not None
            for name, tensor in unwrap_model(model).state_dict(keep_vars=True).items()
            if tensor.is_floating_point() and (isinstance(tensor, nn.Parameter) or name.endswith(STATISTICS))
        }
        finite = torch.stack([tensor.isfinite().all().to(self.task.device) for tensor in tensors.values()])
        return {name for name, good in zip(tensors, finite.tolist(), strict=True) if not good}


def count_batch(guard: Guard, task: nn.Module, inputs: Any, result: dict[str, Tensor]) -> None:
    """T's hook; it does not know T, which would then outlive the processes' group."""
    bad = ~result['loss'].detach().isfinite()
    if is_distributed():  # all processes end at once
        anywhere = bad.float()
        torch.distributed.all_reduce(anywhere, op=torch.distributed.ReduceOp.MAX)
        bad = anywhere > 0
    guard.count(bad)
